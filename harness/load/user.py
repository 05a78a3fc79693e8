"""Locust's own way: a user class for locustfiles, which Locust runs without the harness's command line.

    locust -f locustfiles/chat.py --host http://127.0.0.1:8080            # Locust's page
    locust -f locustfiles/chat.py --host ... --headless -u 16 -r 4 -t 2m  # none; --processes 4, --master, --worker too

Every request is recorded as `harness bench` records it. The run's folder is what HARNESS_OUTPUT names, else a new one
in reports/; `harness report FOLDER` makes the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from locust import User, events, task

from harness.engines import APIS
from harness.errors import UsageError
from harness.load import locust_listen  # noqa: F401 - sets where Locust listens
from harness.load.locust_keeper import Asking, Keeper
from harness.load.locust_member import Member
from harness.units import parse_duration
from harness.workload.named import named

_SHARED = ("api", "stream", "model_name", "timeout", "seed")
_members: WeakKeyDictionary[Any, Member] = WeakKeyDictionary()


class StreamUser(User):
    """A user that asks, reads the stream and asks again; derive one for each workload.

    workload: where lengths come from that are not given here. input_tokens, output_tokens: numbers or distributions, as
    `harness bench` takes them. api: tgi, openai-chat or openai-completions, None for what the service speaks best;
    stream: False asks for whole answers. model_name: of the requests; None takes what the service tells. timeout: for
    one request. seed: of lengths and prompts. wait_time, weight and fixed_count are Locust's.
    """

    abstract = True
    workload: str = "chat"
    input_tokens: str | int | None = None
    output_tokens: str | int | None = None
    api: str | None = None
    stream: bool = True
    model_name: str | None = None
    timeout: str = "10m"
    seed: int = 1

    @task
    def ask(self) -> None:
        """One request, from its bytes to its answer; at rest while the run ends."""
        if not _members[self.environment].ask(type(self).__name__):
            gevent.sleep(0.05)


@events.init.add_listener
def join(environment: Any, runner: Any, **_: Any) -> None:
    """Take the part in a run that this process has: it keeps it, asks in it, or both."""
    kind = type(runner).__name__
    if kind != "WorkerRunner":
        Keeper(environment, runner, lambda: asking_of(_stream_users(environment)))
    if kind != "MasterRunner":
        _members[environment] = Member(environment, runner)
    # gevent counts from the time at which its loop last ran, which was before everything here was imported: on a slow
    # machine a short -t was over before the first user came.
    gevent.get_hub().loop.update_now()


def asking_of(classes: Sequence[type[StreamUser]]) -> Asking:
    """What these classes ask. Raises UsageError for values that cannot be read, or that differ where they must not."""
    if not classes:
        raise UsageError("no user class is derived from StreamUser", advice="See locustfiles/chat.py.")
    for name in _SHARED:
        values = {getattr(each, name) for each in classes}
        if len(values) > 1:
            names = ", ".join(each.__name__ for each in classes)
            raise UsageError(f"{names} differ in {name}", advice="The users of one run share it.")
    first = classes[0]
    if first.api is not None and first.api not in APIS:
        raise UsageError(f"unknown api {first.api!r}", where=first.__name__, advice=f"Known: {', '.join(APIS)}.")
    try:
        timeout = parse_duration(first.timeout)
    except ValueError as error:
        raise UsageError(f"{error}, found {first.timeout!r}", where=f"{first.__name__}.timeout") from error
    lengths = {each.__name__: _lengths(each) for each in classes}
    return Asking(first.api, first.stream, first.model_name, timeout, first.seed, lengths)


def _lengths(user: type[StreamUser]) -> tuple[str, str, str]:
    """Name, input and output lengths. The name is the file's, as for `bench --workload`."""
    name = user.__module__.rpartition(".")[2]
    if user.input_tokens is not None and user.output_tokens is not None:
        return name, str(user.input_tokens), str(user.output_tokens)
    base = named(user.workload)
    return name, str(user.input_tokens or base.input_tokens), str(user.output_tokens or base.output_tokens)


def _stream_users(environment: Any) -> list[type[StreamUser]]:
    return [each for each in environment.user_classes if issubclass(each, StreamUser)]
