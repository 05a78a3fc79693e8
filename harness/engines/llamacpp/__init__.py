"""llama.cpp's own server, llama-server, b8672 and newer.

flags: arguments by build · options: an entry's · slots: limits become slots and shares · source: the GGUF file ·
images · log: start-up lines · failures · info: /props, /metrics, /slots · facts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.api import Extras
from harness.engines.base import (
    Container,
    EngineFacts,
    EngineInfo,
    FailedStart,
    Invocation,
    MemoryLaw,
    OnFullCache,
    Place,
    StartLog,
)
from harness.engines.client import Client
from harness.engines.failure import Failure
from harness.engines.gauges import Gauges
from harness.engines.llamacpp import facts, failures, flags, images, info, memory, options
from harness.engines.llamacpp.coming_from import GUIDES
from harness.engines.llamacpp.log import LlamaCppLog
from harness.engines.migration import Guide
from harness.engines.plain import PlainEngine
from harness.engines.support import read_architectures


class LlamaCpp(PlainEngine):
    """The engine as the rest of the harness sees it; see base.Engine."""

    name = "llamacpp"
    title = "llama.cpp"
    app = "llama.cpp"
    program: tuple[str, ...] = ("llama-server",)
    default_api = "openai-chat"
    bare_api = "openai-completions"
    health_path = "/health"
    queue_metric = "llamacpp:requests_deferred"
    default_drain = 0  # it stops generating at once, and then waits for its clients to leave
    on_full_cache: OnFullCache = "ends answers"  # where slots draw on one cache; a share of its own just ends its own
    extras = Extras(exact={"ignore_eos": True}, counts={"timings_per_token": True})
    gauge_pages = info.GAUGE_PAGES
    accepts = options.ACCEPTS
    architectures = read_architectures(files(__package__).joinpath("architectures.txt").read_text(encoding="utf-8"))

    def version(self, text: str) -> Version:
        return flags.release(text)

    def told_version(self, output: str) -> str | None:
        return info.told_version(output)

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        return options.invocation(model, version, place, revision=revision, changes=changes)

    def container(self, model: Model, version: Version, *, with_token: bool) -> Container:
        return images.container_of(model, with_token=with_token)

    def forgotten_variables(self) -> frozenset[str]:
        return options.forgotten_variables()

    def devices_variables(self) -> frozenset[str]:
        return frozenset(each.visible for each in images.VARIANTS.values() if each.visible)

    def drain_seconds(self, started_with: object) -> int | None:
        return self.default_drain

    def without_limits(self, args: Sequence[str], limits: Collection[str]) -> tuple[str, ...]:
        taken = [flag for name in limits for flag in options.FLAGS_OF_LIMIT.get(name, ())]
        return flags.FLAGS.without(args, taken)

    def concurrent(self, started_with: Invocation) -> int:
        return facts.concurrent(started_with)

    def new_log(self) -> LlamaCppLog:
        return LlamaCppLog()

    def explain(
        self,
        lines: Sequence[str],
        exit_code: int | None = None,
        *,
        memory_limit_hit: bool = False,
        serving: bool = False,
    ) -> Failure:
        return failures.explain(lines, exit_code, memory_limit_hit=memory_limit_hit, serving=serving)

    def recognise(self, client: Client) -> EngineInfo | None:
        return info.recognise(client)

    def limits_in_force(self, info: EngineInfo, log: StartLog, started_with: Invocation) -> Limits:
        assert isinstance(log, LlamaCppLog)
        return facts.limits_in_force(info, log, started_with)

    def guides(self) -> Mapping[str, Guide]:
        return GUIDES

    def cautions(self, limits: Limits, log: StartLog, started_with: Invocation) -> Sequence[str]:
        assert isinstance(log, LlamaCppLog)
        return facts.cautions(limits, log, started_with)

    def read_gauges(self, page: str, others: Sequence[str] = ()) -> Gauges:
        return info.read_gauges(page, others)

    def limit_names(self, version: Version) -> Mapping[str, str]:
        return options.LIMIT_NAMES

    def flags(self, limits: Limits, version: Version) -> Mapping[str, str]:
        return options.flags_for(limits, version)

    def memory_law(self, model: Model) -> MemoryLaw | None:
        return memory.law_of(model, self.version(model.engine.version))

    def memory_flags(self, model: Model) -> Mapping[str, str]:
        return facts.memory_flags(model)

    def facts(self, info: EngineInfo, log: StartLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
        assert isinstance(log, LlamaCppLog)
        return facts.facts_of(info, log, limits, given, model)

    def failed_start(self, failure: Failure, log: StartLog) -> FailedStart:
        assert isinstance(log, LlamaCppLog)
        return facts.failed_start(failure, log)
