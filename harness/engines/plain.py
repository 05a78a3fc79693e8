"""PlainEngine: the base class of engines, with a default answer to every question of base.Engine.

An engine overrides what is its own. A default says nothing rather than something wrong: no limit, no gauge, no cause
that is not everybody's; and that a request which waits is taken as soon as there is room, in order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import EVER, Version, parse_version
from harness.engines import arguments
from harness.engines.api import NO_EXTRAS
from harness.engines.base import (
    NVIDIA,
    Container,
    EngineFacts,
    EngineInfo,
    FailedStart,
    FailureCause,
    Invocation,
    MemoryLaw,
    OnFullCache,
    Place,
    StartLog,
)
from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME
from harness.engines.client import Client
from harness.engines.failure import Failure, explain_by
from harness.engines.gauges import Gauges
from harness.engines.hub_cache import TARGET, TOKEN_PLACE, VOLUME
from harness.engines.migration import Guide
from harness.engines.openai_engine import generate_once
from harness.engines.support import NOT_READ
from harness.errors import UsageError

_CAUSES: Mapping[str, FailureCause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
}


class PlainEngine:
    """See base.Engine. To be given: name, title, app, program, accepts, `image`, `invocation` and `recognise`."""

    name: str
    title: str
    app: str
    program: tuple[str, ...]
    accepts: Accepts
    default_api = "openai-chat"
    bare_api = "openai-completions"
    extras = NO_EXTRAS
    health_path = "/health"
    gauge_pages: tuple[str, ...] = ()
    queue_metric = ""
    default_drain = 30
    on_full_cache: OnFullCache = "waits"
    architectures = NOT_READ

    def image(self, model: Model) -> str:
        """The image of the entry's release, where the entry names none."""
        raise NotImplementedError

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        raise NotImplementedError

    def recognise(self, client: Client) -> EngineInfo | None:
        raise NotImplementedError

    def version(self, text: str) -> Version:
        return arguments.release(text, parse_version(self.accepts.newest) or EVER, self.title)

    def told_version(self, output: str) -> str | None:
        found = re.search(r"\bv?(\d+\.\d+(?:\.\d+)?\S*)", output)
        return found[1] if found else None

    def container(self, model: Model, version: Version, *, with_token: bool) -> Container:
        return Container(
            image=model.engine.image or self.image(model),
            hardware=NVIDIA,
            cache_volume=VOLUME,
            cache_target=TARGET,
            token_places=(TOKEN_PLACE,) if with_token else (),
        )

    def forgotten_variables(self) -> frozenset[str]:
        return frozenset()

    def devices_variables(self) -> frozenset[str]:
        return frozenset()

    def drain_seconds(self, started_with: Invocation) -> int | None:
        return None

    def without_limits(self, args: Sequence[str], limits: Collection[str]) -> tuple[str, ...]:
        return tuple(args)

    def served_name(self, entry: str) -> str:
        return entry

    def concurrent(self, started_with: Invocation) -> int:
        return 128

    def exploring(self, *, proving: bool) -> Mapping[str, str]:
        return {}

    def without_prefix_cache(self, version: Version) -> Mapping[str, str]:
        return {}  # nothing that its prefix cache keeps is ever in the way of a request

    def new_log(self) -> StartLog:
        return StartLog()

    def explain(
        self,
        lines: Sequence[str],
        exit_code: int | None = None,
        *,
        memory_limit_hit: bool = False,
        serving: bool = False,
    ) -> Failure:
        common = (*RUNTIME, *HUB, *OFFLINE, *PORT)
        return explain_by(common, lines, exit_code, memory_limit_hit=memory_limit_hit, serving=serving)

    def first_answer(self, client: Client, model_name: str, timeout: float) -> str | None:
        return generate_once(client, model_name, timeout)

    def limits_in_force(self, info: EngineInfo, log: StartLog, started_with: Invocation) -> Limits:
        return Limits(**{**log.limits.known(), **info.limits.known()})  # type: ignore[arg-type]

    def cautions(self, limits: Limits, log: StartLog, started_with: Invocation) -> Sequence[str]:
        return ()

    def read_gauges(self, page: str, others: Sequence[str] = ()) -> Gauges:
        return Gauges()

    def guides(self) -> Mapping[str, Guide]:
        return {}

    def limit_names(self, version: Version) -> Mapping[str, str]:
        return {}

    def flags(self, limits: Limits, version: Version) -> Mapping[str, str]:
        names = self.limit_names(version)
        lacking = [name for name in limits.known() if name not in names]
        if lacking:
            has = (
                f"It has {', '.join(names)}." if names else "It has none that harness knows; `args` passes its own on."
            )
            raise UsageError(f"{self.title} has no {lacking[0]}", advice=has)
        return {names[name]: str(value) for name, value in limits.known().items()}

    def memory_law(self, model: Model) -> MemoryLaw | None:
        return None

    def memory_flags(self, model: Model) -> Mapping[str, str]:
        return {}

    def facts(self, info: EngineInfo, log: StartLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
        return EngineFacts(
            "unchecked",
            budget=limits.max_batch_total_tokens,
            max_input_tokens=limits.max_input_tokens,
            max_total_tokens=limits.max_total_tokens,
            max_concurrent_requests=limits.max_concurrent_requests,
            version=info.version,
            emulated=info.emulated,
        )

    def failed_start(self, failure: Failure, log: StartLog) -> FailedStart:
        cause = "hang" if failure.cause == "timeout" else _CAUSES.get(failure.kind, "other")
        return FailedStart("launch" if log.phase == "starting" else "load", cause)
