"""From the user classes of a locustfile to the run that Locust's own command makes of them: its settings and plan."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from harness.engines import APIS
from harness.engines.framing import framed
from harness.engines.identify import default_api, endpoint_at, extras_of, identify
from harness.engines.vocabulary import vocabulary_of
from harness.errors import UsageError
from harness.load.locustfile import spec_of
from harness.load.plan import LoadPlan
from harness.load.run_recorder import RunRecorder, begin_manifest
from harness.load.starts import JITTER
from harness.load.stream_user import StreamUser
from harness.measure.clock import Anchor
from harness.measure.run_folder import Level, RunFolder, run_name
from harness.units import parse_duration
from harness.workload.mix import SLOTS
from harness.workload.user_spec import UserSpec, workload_of
from harness.workload.vocabulary import Vocabulary

GRACE = 50.0  # seconds for open answers at the end; Locust's master itself waits 60 s for its workers
_SHARED = ("api", "stream", "model_name", "timeout", "seed")


@dataclass(frozen=True)
class LocustSettings:
    """What the user classes of a run have in common, and what each asks (`users`)."""

    api: str | None
    stream: bool
    model_name: str | None
    timeout: float
    seed: int
    users: Mapping[str, UserSpec]  # by user class


def settings_of(classes: Sequence[type[StreamUser]]) -> LocustSettings:
    """What these classes say. Raises UsageError for values that cannot be read, or that differ where they must not."""
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
    if len(classes) > SLOTS:
        raise UsageError(f"{len(classes)} user classes, at most {SLOTS} can be told apart")
    users = {each.__name__: spec_of(each) for each in classes}
    return LocustSettings(first.api, first.stream, first.model_name, timeout, first.seed, users)


def plan_run(settings: LocustSettings, host: str, level: Level, processes: int) -> tuple[RunRecorder, LoadPlan]:
    """Folder, manifest and plan of a run whose first level is this. Raises HarnessErrors."""
    _refuse_folder_in_use()
    if not host:
        raise UsageError("no host", advice="Name the service with --host http://host:port.")
    info, endpoint = identify(endpoint_at(host.rstrip("/"), settings.model_name))
    api = settings.api or default_api(info)
    plain = vocabulary_of(endpoint)

    @cache
    def words(system: bool) -> Vocabulary:
        return framed(plain, endpoint, api, system=system)

    salt = f"{time.time_ns():x}"
    workload = workload_of(tuple(settings.users.values()), settings.seed, salt, words, info.limits.known())
    anchor = Anchor.now()
    folder = RunFolder.create(_output_folder(anchor.utc, info.model_id or "service", workload.name))
    manifest = begin_manifest(
        folder, anchor, info, endpoint, workload, (level,), program="locust",
        api=api, stream=settings.stream, seed=settings.seed, timeout=settings.timeout, processes=processes,
    )  # fmt: skip
    plan = LoadPlan(
        url=endpoint.url,
        api=api,
        model_name=endpoint.model_name or "",
        stream=settings.stream,
        extras=extras_of(info).as_dict(),
        timeout=settings.timeout,
        workload=workload.as_dict(),
        seed=settings.seed,
        folder=str(folder.path.resolve()),
        clock_monotonic=anchor.monotonic,
        processes=processes,
        spread=True,
        jitter=0.0 if workload.converses else JITTER,
        users=tuple(settings.users),
        grace=GRACE,
    )
    return RunRecorder(folder, manifest, info, endpoint), plan


def _output_folder(start: datetime, model: str, workload: str) -> Path:
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
