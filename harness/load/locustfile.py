"""Runs a locustfile, in a load process, and says what its users ask."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locust.shape import LoadTestShape
from locust.util.load_locustfile import load_locustfile

from harness.errors import UsageError
from harness.load.user import StreamUser, spec_of
from harness.workload.user_spec import UserSpec


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


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(path: str, error: BaseException) -> str:
    """The file, with the line of it in which the error came up."""
    here = os.path.abspath(path)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == here]
    return f"{path}:{lines[-1]}" if lines else path


def shape_facts(shape: LoadTestShape | None) -> dict[str, Any] | None:
    """For the manifest: which shape there is."""
    return None if shape is None else {"shape": type(shape).__name__, "file": Path(shape.__module__).name}
