"""SGLang, 0.4.6 to 0.5.23.

options: arguments of the launcher by release, flags.txt their names · images · log: start-up lines · failures · info:
/v1/models, /server_info and /metrics · facts: what a start shows · coming_from: entries of other engines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
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
from harness.engines.migration import Guide
from harness.engines.openai_engine import EXACT_AND_COUNTED
from harness.engines.plain import PlainEngine
from harness.engines.sglang import facts, failures, images, info, memory, options
from harness.engines.sglang.coming_from import GUIDES
from harness.engines.sglang.log import SglangLog
from harness.engines.support import read_architectures

_ROWS = 2048  # requests that run at once where nobody says, at least (mem_cache/kv_cache_configurator.py)


class Sglang(PlainEngine):
    """The engine as the rest of the harness sees it; see base.Engine."""

    name = "sglang"
    title = "SGLang"
    app = "sglang"
    program: tuple[str, ...] = images.PROGRAM
    default_api = "openai-chat"
    bare_api = "openai-completions"
    extras = EXACT_AND_COUNTED
    health_path = "/health"  # generates a token, hence at least a second
    gauge_pages: tuple[str, ...] = ()
    queue_metric = "sglang:num_queue_reqs"
    default_drain = 90  # it has no limit of its own
    on_full_cache: OnFullCache = "retracts"
    accepts = options.ACCEPTS
    architectures = read_architectures(files(__package__).joinpath("architectures.txt").read_text(encoding="utf-8"))

    def told_version(self, output: str) -> str | None:
        found = re.findall(r"(?m)^(?:sglang\s+)?v?(\d+\.\d+\.\d+\S*)\s*$", output)
        return found[-1] if found else None

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        args = options.arguments_for(model, version, place, revision=revision)
        return Invocation(args, options.environment_for(model, changes))

    def container(self, model: Model, version: Version, *, with_token: bool) -> Container:
        return images.container_of(model, with_token=with_token)

    def forgotten_variables(self) -> frozenset[str]:
        return options.FORGOTTEN

    def without_limits(self, args: Sequence[str], limits: Collection[str]) -> tuple[str, ...]:
        return options.FLAGS.without(
            args, [options.LIMIT_NAMES[name] for name in limits if name in options.LIMIT_NAMES]
        )

    def concurrent(self, started_with: Invocation) -> int:
        def told(name: str) -> int | None:
            value = options.FLAGS.value(started_with.args, options.LIMIT_NAMES[name])
            return int(value) if value is not None and value.isdigit() else None

        rows = told("max_batch_size") or _ROWS
        return rows + (told("max_concurrent_requests") or 0)

    def new_log(self) -> SglangLog:
        return SglangLog()

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
        assert isinstance(log, SglangLog)
        return facts.limits_in_force(info, log, started_with)

    def cautions(self, limits: Limits, log: StartLog, started_with: Invocation) -> Sequence[str]:
        pool, context = limits.max_batch_total_tokens, log.context if isinstance(log, SglangLog) else None
        if pool is None or context is None or context <= pool:
            return ()
        return (f"its KV cache holds {pool:,} tokens, fewer than its context of {context:,}: no chat can be longer",)

    def read_gauges(self, page: str, others: Sequence[str] = ()) -> Gauges:
        return info.read_gauges(page)

    def guides(self) -> Mapping[str, Guide]:
        return GUIDES

    def limit_names(self, version: Version) -> Mapping[str, str]:
        return {name: flag for name, flag in options.LIMIT_NAMES.items() if options.FLAGS.known_in(flag, version)}

    def flags(self, limits: Limits, version: Version) -> Mapping[str, str]:
        return options.limits_as_flags(limits, version)

    def memory_law(self, model: Model) -> MemoryLaw | None:
        return memory.law_of(model, self.version(model.engine.version))

    def memory_flags(self, model: Model) -> Mapping[str, str]:
        return facts.memory_flags(model)

    def facts(self, info: EngineInfo, log: StartLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
        assert isinstance(log, SglangLog)
        return facts.facts_of(info, log, limits, model)

    def failed_start(self, failure: Failure, log: StartLog) -> FailedStart:
        assert isinstance(log, SglangLog)
        return facts.failed_start(failure, log)
