"""Keeps a run that Locust drives: its folder and manifest, its levels, and at the end one store of all records.

Lives in Locust's master, or in its only process. A level is a target number of users: changing it, on Locust's page, by
key or by a LoadTestShape, begins the next level. The ramp to the target belongs to the level's warm-up.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import gevent

from harness.engines import APIS
from harness.engines.base import Endpoint
from harness.engines.framing import framed
from harness.engines.identify import default_api, endpoint_at, extras_of, identify
from harness.engines.vocabulary import vocabulary_of
from harness.errors import HarnessError, ServiceError, UsageError
from harness.load import locust_messages as say
from harness.load.plan import LoadPlan
from harness.load.run_recorder import RunRecorder, begin_manifest
from harness.load.user import StreamUser, spec_of
from harness.measure.clock import Anchor
from harness.measure.run_folder import Level, RunFolder, run_name
from harness.units import parse_duration
from harness.workload.mix import SLOTS, Mix
from harness.workload.user_spec import UserSpec

logger = logging.getLogger("harness")

_SHARED = ("api", "stream", "model_name", "timeout", "seed")

GRACE = 50.0  # seconds for open answers at the end; Locust's master itself waits 60 s for its workers
_WATCH_EVERY = 0.1
_RAMP_LEAST = 1.0  # seconds; a shorter ramp is left to the default rule of the warm-up
_WARMUP_SHARE, _WARMUP_MOST = 0.1, 30.0  # after the ramp, as stats/window.py has it from the level's start


@dataclass(frozen=True)
class Asking:
    """What the user classes of a run ask. They share all of it but what each asks."""

    api: str | None
    stream: bool
    model_name: str | None
    timeout: float
    seed: int
    users: Mapping[str, UserSpec]  # by user class


@dataclass
class Kept:
    """A run that lasts. members: joined processes by Locust's id, with their numbers; done: those that are through.

    test_began: when Locust began to count the test's time, CLOCK_MONOTONIC.
    """

    recorder: RunRecorder
    announcement: dict[str, Any]
    run_time: float | None
    test_began: float = 0.0
    level_began: float = 0.0
    ramped_at: float | None = None
    members: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    stopping: bool = False
    interrupted: bool = False

    @property
    def folder(self) -> RunFolder:
        return self.recorder.folder

    @property
    def level(self) -> Level:
        return self.recorder.manifest.levels[-1]

    def now(self) -> float:
        return self.recorder.now()

    def write(self, **changes: Any) -> None:
        """The manifest with these changes of its newest level."""
        self.recorder.note(replace(self.level, **changes))


class Keeper:
    """Announces a run when Locust starts a test, and closes it when the test has ended."""

    def __init__(self, environment: Any, runner: Any, users: Callable[[Any], Sequence[type[StreamUser]]]) -> None:
        """users: gives the environment's user classes when a test starts."""
        self._environment, self._runner, self._users = environment, runner, users
        self._kept: Kept | None = None
        self._began = self._quitting = False
        runner.register_message(say.JOINED, self._on_joined)
        runner.register_message(say.DONE, self._on_done)
        runner.register_message(say.JOURNAL, self._on_journal)
        runner.register_message(say.ASK_TIME, self._on_ask_time)
        events = environment.events
        events.test_start.add_listener(lambda **_: self._start())
        events.spawning_complete.add_listener(lambda **_: self._ramped())
        events.test_stopping.add_listener(lambda **_: self._stopping())
        events.test_stop.add_listener(lambda **_: self._stop())
        events.quitting.add_listener(lambda **_: self._quit())
        events.worker_connect.add_listener(lambda client_id, **_: self._announce(client_id))

    def _start(self) -> None:
        began = time.monotonic()
        try:
            self._kept = self._begin()
            self._kept.test_began = began
        except HarnessError as error:
            self._fail(error)
            gevent.spawn(self._runner.quit if self._headless else self._runner.stop)
            return
        self._began = True
        logger.info("writing to %s", self._kept.folder.path)
        self._kept.recorder.__enter__()
        self._announce()
        gevent.spawn(self._watch, self._kept)

    @property
    def _headless(self) -> bool:
        options = self._environment.parsed_options
        return options is not None and bool(options.headless)

    def _fail(self, error: HarnessError) -> None:
        """Locust's exit code becomes ours."""
        logger.error("%s", error)
        self._environment.process_exit_code = error.exit_code

    def _begin(self) -> Kept:
        """Folder, manifest and plan of a run. Raises HarnessErrors."""
        _refuse_folder_in_use()
        asking = asking_of(self._users(self._environment))
        url = str(self._environment.host or "").rstrip("/")
        if not url:
            raise UsageError("no host", advice="Name the service with --host http://host:port.")
        info, endpoint = identify(endpoint_at(url, asking.model_name))
        options = self._environment.parsed_options
        api = asking.api or default_api(info)
        mix = _mix(asking, endpoint, api, info.limits.known())
        anchor = Anchor.now()
        folder = RunFolder.create(output_folder(anchor.utc, info.model_id or "service", mix.name))
        run_time = float(options.run_time) if options is not None and options.run_time else None
        level = Level(0, users=self._runner.target_user_count, duration=run_time, started_at=0.0)
        manifest = begin_manifest(
            folder, anchor, info, endpoint, mix, (level,), program="locust",
            api=api, stream=asking.stream, seed=asking.seed, timeout=asking.timeout,
        )  # fmt: skip
        recorder = RunRecorder(folder, manifest, info, endpoint)
        plan = LoadPlan(
            url=endpoint.url,
            api=api,
            model_name=endpoint.model_name or "",
            stream=asking.stream,
            extras=extras_of(info).as_dict(),
            timeout=asking.timeout,
            levels=(),
            workload=mix.as_dict(),
            seed=asking.seed,
            folder=str(folder.path.resolve()),
            clock_monotonic=anchor.monotonic,
        )
        slots = {name: slot for slot, name in enumerate(asking.users)}
        announcement = {"plan": plan.to_json(), "machine": say.machine(), "slots": slots, "grace": GRACE}
        return Kept(recorder, announcement, run_time)

    def _announce(self, client_id: str | None = None) -> None:
        """To all members, or to one that came later."""
        kept = self._kept
        if kept is not None and not kept.stopping:
            message = {**kept.announcement, "level": kept.level.level}
            if client_id is None:
                self._runner.send_message(say.RUN, message)
            else:
                self._runner.send_message(say.RUN, message, client_id=client_id)

    def _watch(self, kept: Kept) -> None:
        """A new target is a new level, from the moment of the change."""
        while self._kept is kept and not kept.stopping:
            if self._runner.target_user_count != kept.level.users and kept.level.users is not None:
                self._close_level(kept, kept.now(), "users_changed")
                kept.write(duration=None, ended_at=kept.now())
                number, kept.level_began, kept.ramped_at = kept.level.level + 1, kept.now(), None
                kept.recorder.note(Level(number, users=self._runner.target_user_count, started_at=kept.level_began))
                self._runner.send_message(say.LEVEL, {"level": number})
            gevent.sleep(_WATCH_EVERY)

    def _ramped(self) -> None:
        kept = self._kept
        if kept is not None and kept.ramped_at is None and not kept.stopping:
            self._ramp_ended(kept)

    def _ramp_ended(self, kept: Kept) -> None:
        kept.ramped_at = kept.now()
        kept.write(warmup=_warmup(kept, kept.level.duration or kept.ramped_at))

    def _close_level(self, kept: Kept, at: float, ended_by: str) -> None:
        kept.write(sending_ended_at=at, ended_by=ended_by, warmup=_warmup(kept, kept.level.duration or at))

    def _stopping(self) -> None:
        kept = self._kept
        if kept is None or kept.stopping:
            return
        kept.stopping, at = True, kept.now()
        early = self._ended_early(kept)
        self._close_level(kept, at, "interrupted" if early else "stopped" if kept.run_time is None else "duration")
        kept.interrupted = early

    def _ended_early(self, kept: Kept) -> bool:
        """Before its limit, by hand: Locust then quits before the test has stopped, or somebody pressed its page's
        button. Its own limit comes early by itself on a busy machine: it counts from when it was last at rest.
        """
        if kept.run_time is None or time.monotonic() - kept.test_began >= kept.run_time - 1.0:
            return False
        return self._quitting or not self._headless

    def _stop(self) -> None:
        """The test has ended: collect all journals, write the records, say where they are."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        self._kept = kept
        self._runner.send_message(say.END, {})
        until = time.monotonic() + GRACE + 5.0
        while self._awaited(kept) and time.monotonic() < until:
            gevent.sleep(0.02)
        self._kept = None
        kept.recorder.__exit__()
        kept.write(ended_at=kept.now())
        kept.recorder.close(interrupted=kept.interrupted, processes=len(kept.members))
        lost = sorted(str(number) for client, number in kept.members.items() if client not in kept.done)
        kept.recorder.keep(lost_processes=lost)
        for number in lost:
            logger.warning("worker %s was lost: its last second may be missing", number)
        logger.info("records are in %s; for the report: harness report %s", kept.folder.path, kept.folder.path)

    def _quit(self) -> None:
        """A limit that is over before the service has answered leaves nothing, which must not look like a success."""
        self._quitting = True
        if self._headless and not self._began and not self._environment.process_exit_code:
            self._fail(ServiceError("the run ended before it began: nothing was recorded", advice="Lengthen -t."))

    def _awaited(self, kept: Kept) -> list[str]:
        """Members whose journal is still to come."""
        clients = getattr(self._runner, "clients", None)
        away = set() if clients is None else {name for name in kept.members if _is_away(clients.get(name))}
        return [name for name in kept.members if name not in kept.done | away]

    def _on_joined(self, environment: Any, msg: Any, **_: Any) -> None:
        kept = self._kept
        if kept is None:
            return
        kept.members[msg.node_id] = msg.data["process"]
        if kept.ramped_at is not None and not kept.stopping:
            self._ramp_ended(kept)  # users of a worker that was not ready asked nothing until now

    def _on_done(self, environment: Any, msg: Any, **_: Any) -> None:
        if self._kept is not None:
            self._kept.done.add(msg.node_id)

    def _on_journal(self, environment: Any, msg: Any, **_: Any) -> None:
        if self._kept is not None:
            with self._kept.folder.journal(msg.data["process"]).open("ab") as file:
                file.write(msg.data["content"])

    def _on_ask_time(self, environment: Any, msg: Any, **_: Any) -> None:
        self._runner.send_message(say.TIME, {"at": time.monotonic()}, client_id=msg.node_id)


def output_folder(start: datetime, model: str, workload: str) -> Path:
    """What HARNESS_OUTPUT names, else `reports/<UTC>-<model>-<workload>`; numbered where a run is there already."""
    given = os.environ.get("HARNESS_OUTPUT")
    first = Path(given) if given else Path("reports") / run_name(start, model.rpartition("/")[2], None, workload)
    if first.is_dir() and not any(first.iterdir()):
        return first
    return next(
        path
        for number in range(1, 10_000)
        if not (path := first if number == 1 else first.with_name(f"{first.name}-{number}")).exists()
    )


def _refuse_folder_in_use() -> None:
    """What HARNESS_OUTPUT names may be absent, empty or a run. Raises UsageError."""
    given = os.environ.get("HARNESS_OUTPUT")
    if given and not (Path(given) / "manifest.json").is_file():
        RunFolder.create(Path(given))


def _is_away(client: Any) -> bool:
    return client is None or client.state == "missing"


def _warmup(kept: Kept, ended: float) -> float | None:
    """The ramp and the usual share of what follows it; None where there was no ramp to speak of: the default rule.

    In whole seconds, so that repeats of one command have the same warm-up and can be compared.
    """
    if kept.ramped_at is None or kept.ramped_at - kept.level_began <= _RAMP_LEAST:
        return None
    ramp = math.ceil(kept.ramped_at - kept.level_began + 0.5)
    rest = max(0.0, ended - kept.level_began - ramp)
    return float(ramp + math.ceil(min(_WARMUP_SHARE * rest, _WARMUP_MOST)))


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
    users = {each.__name__: spec_of(each) for each in classes}
    return Asking(first.api, first.stream, first.model_name, timeout, first.seed, users)


def _mix(asking: Asking, endpoint: Endpoint, api: str, limits: Mapping[str, int | float]) -> Mix:
    if len(asking.users) > SLOTS:
        raise UsageError(f"{len(asking.users)} user classes, at most {SLOTS} can be told apart")
    plain, salt = vocabulary_of(endpoint), f"{time.time_ns():x}"
    words = {
        system: framed(plain, endpoint, api, system=system)
        for system in {spec.has_system_prompt for spec in asking.users.values()}
    }
    parts = tuple(
        spec.workload(
            seed=asking.seed + slot,
            salt=f"{salt}-{slot}",
            vocabulary=words[spec.has_system_prompt],
            limits=limits,
        )
        for slot, spec in enumerate(asking.users.values())
    )
    return Mix(parts, tuple(spec.weight for spec in asking.users.values()))
