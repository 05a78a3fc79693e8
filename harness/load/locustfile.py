"""Loads a locustfile, in a load process, and describes what its users ask."""

from __future__ import annotations

import inspect
import os
import traceback
from dataclasses import dataclass

from locust.shape import LoadTestShape
from locust.util.load_locustfile import load_locustfile

from harness.errors import UsageError
from harness.load.stream_user import StreamUser, waits
from harness.workload.named import find
from harness.workload.user_spec import UserSpec

_TICK, _LONGEST = 1.0, 86_400.0  # seconds: between two looks of Locust's at a shape, and of a run


@dataclass(frozen=True)
class Locustfile:
    """users: its classes derived from StreamUser, by name. shape: None without one."""

    path: str
    users: dict[str, type[StreamUser]]
    shape: LoadTestShape | None = None

    def specs(self) -> list[UserSpec]:
        """What each class asks. Raises UsageError for what cannot be read."""
        found = [spec_of(user, self.path) for user in self.users.values()]
        for spec in found:
            spec.check()
        return found


def load(path: str) -> Locustfile:
    """The file's users and shape. Raises UsageError with the line where it does not run, or holds no user of ours."""
    try:
        users, shapes = load_locustfile(os.path.abspath(path))
    except UsageError:
        raise
    except SyntaxError as error:
        raise UsageError(f"not valid Python: {error.msg}", where=f"{path}:{error.lineno}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's file raises, it is theirs
        raise UsageError(f"cannot be run: {_words(error)}", where=_place(path, error)) from error
    ours = {name: user for name, user in users.items() if issubclass(user, StreamUser)}
    if not ours:
        advice = "Derive one from harness.load.user.StreamUser, as locustfiles/chat.py does."
        raise UsageError("holds no class derived from StreamUser", where=path, advice=advice)
    if others := sorted(set(users) - set(ours)):
        advice = "Derive it from StreamUser: what other users send is not recorded."
        raise UsageError(f"holds {', '.join(others)}, not derived from StreamUser", where=path, advice=advice)
    if len(shapes) > 1:
        raise UsageError(f"holds {len(shapes)} load shapes", where=path, advice="Keep one to a file.")
    return Locustfile(path, ours, shapes[0] if shapes else None)


def spec_of(user: type[StreamUser], path: str | None = None, asked_by: tuple[str, ...] = ()) -> UserSpec:
    """What a class asks, lengths of the workload that it names included. Raises UsageError."""
    module = inspect.getmodule(user)
    path = path or str(getattr(module, "__file__", None) or user.__module__)
    name, where = user.__module__.rpartition(".")[2], f"{path}: {user.__name__}"
    lengths = {side: getattr(user, side) for side in ("input_tokens", "output_tokens")}
    for key, value in lengths.items():
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            raise UsageError(f"expected a number or a text, found {value!r}", where=f"{where}.{key}")
    if None in lengths.values():
        base = _base(user, where, name, asked_by)
        lengths = {side: getattr(base, side) if value is None else value for side, value in lengths.items()}
    told = ("turns", "think_time", "history", "system_tokens", "shared_prefix")
    own = [each for each in user.tasks if each is not StreamUser.converse]
    return UserSpec(
        name,
        user.__name__,
        where,
        str(lengths["input_tokens"]),
        str(lengths["output_tokens"]),
        inspect.cleandoc(user.__doc__ or ""),
        **{key: None if getattr(user, key) is None else str(getattr(user, key)) for key in told},
        scripts=tuple(each.__name__ for each in user.scripts),
        tasks=tuple(getattr(each, "__name__", str(each)) for each in own),
        weight=float(user.weight),
        fixed_count=user.fixed_count,
        waits=waits(user),
        api=user.api,
        stream=user.stream,
    )


def _base(user: type[StreamUser], where: str, name: str, asked_by: tuple[str, ...]) -> UserSpec:
    """The workload that gives what this one leaves out."""
    if user.workload in (*asked_by, name):
        raise UsageError(
            "gives no input_tokens or no output_tokens",
            where=where,
            advice='Give both, or name another workload that has them: workload = "questions".',
        )
    path = str(find(user.workload, where))
    (first, *_) = load(path).users.values()
    return spec_of(first, path, (*asked_by, name))


def fault(path: str, error: BaseException) -> UsageError | None:
    """What a locustfile's own code raised while users ran, with its line; None where the file took no part in it."""
    place = _place(path, error)
    return None if place == path else UsageError(f"a user failed: {_words(error)}", where=place)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(path: str, error: BaseException) -> str:
    """The file, with the line of it in which the error came up."""
    here = os.path.abspath(path)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == here]
    return f"{path}:{lines[-1]}" if lines else path


def steps_of(shape: LoadTestShape, path: str) -> list[tuple[int, float]]:
    """What a shape asks for over time: targets of users, each with the seconds that it lasts.

    Its clock is set, second by second. Raises UsageError for one that asks for more than the time, such as what the
    users have done so far, and for one that does not end.
    """
    where, now = f"{path}: {type(shape).__name__}", [0.0]
    by_hand = f"Run it with `locust -f {path}`."
    shape.get_run_time = lambda: now[0]  # type: ignore[method-assign]
    steps: list[tuple[int, float]] = []
    try:
        while (tick := shape.tick()) is not None:
            if len(tick) > 2:
                raise UsageError("its ticks name user classes", where=where, advice=by_hand)
            users = int(tick[0])
            before, seconds = steps.pop() if steps and steps[-1][0] == users else (users, 0.0)
            steps.append((before, seconds + _TICK))
            now[0] += _TICK
            if now[0] > _LONGEST:
                raise UsageError("does not end within a day", where=where, advice="Give --users and --duration.")
    except UsageError:
        raise
    except Exception as error:  # whatever somebody's file raises, it is theirs
        found = f"tick() asks for more than the time of the run: {_words(error)}"
        raise UsageError(found, where=_place(path, error), advice=by_hand) from error
    return [(users, seconds) for users, seconds in steps if users]
