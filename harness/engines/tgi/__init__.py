"""Text Generation Inference, 1.0 to 3.3.7.

options: environment variables by release · images · log: start-up lines · failures · info: /info and /metrics ·
first_answer · api: /generate_stream, /generate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.api import NO_EXTRAS
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
from harness.engines.plain import PlainEngine
from harness.engines.support import read_architectures
from harness.engines.tgi import facts, failures, images, info, memory, options
from harness.engines.tgi.first_answer import ask_once
from harness.engines.tgi.log import TgiLog
from harness.errors import UsageError

_DEFAULT_CONCURRENT = 128  # launcher/src/main.rs, max_concurrent_requests


class Tgi(PlainEngine):
    """The engine as the rest of the harness sees it; see base.Engine."""

    name = "tgi"
    title = "TGI"
    app = "text-generation-inference"
    program: tuple[str, ...] = ("text-generation-launcher",)
    default_api = bare_api = "tgi"
    extras = NO_EXTRAS
    health_path = "/health"
    queue_metric = "tgi_queue_size"
    default_drain = 90
    on_full_cache: OnFullCache = "waits"
    gauge_pages: tuple[str, ...] = ()
    accepts = options.ACCEPTS
    architectures = read_architectures(files(__package__).joinpath("architectures.txt").read_text(encoding="utf-8"))

    def version(self, text: str) -> Version:
        return options.release(text)

    def told_version(self, output: str) -> str | None:
        words = output.split()
        return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit() and "." in word), None)

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        environment = options.options_for(model, version, changes, revision=revision)
        places = options.places_of(place, version, model.gpus)
        address = {name: places.pop(name) for name in ("HOSTNAME", "PORT")}
        environment = {**places, **environment, **address}
        if place.model_path is not None:
            environment["MODEL_ID"] = place.model_path
        if not place.container:
            return Invocation(environment=environment)
        if "API_KEY" in environment:
            raise UsageError(
                "env/API_KEY would be in the stack's file and in TGI's log",
                where=model.name,
                advice="Take it out: the port is open to this host only.",
            )
        sharded = images.variant_named(model.engine.variant, version, model.name).sharded if model.gpus > 1 else {}
        return Invocation(environment={**sharded, **environment})

    def container(self, model: Model, version: Version, *, with_token: bool) -> Container:
        return images.container_of(model, version, with_token=with_token)

    def forgotten_variables(self) -> frozenset[str]:
        return options.forgotten_variables()

    def devices_variables(self) -> frozenset[str]:
        return frozenset(each.hardware.visible for each in images.VARIANTS.values() if each.hardware.visible)

    def drain_seconds(self, started_with: Invocation) -> int | None:
        told = started_with.environment.get("GRACEFUL_TERMINATION_TIMEOUT", "")
        return int(told) if told.isdigit() else None

    def served_name(self, entry: str) -> str:
        return "tgi"  # it serves one model, under any name

    def concurrent(self, started_with: Invocation) -> int:
        told = started_with.environment.get("MAX_CONCURRENT_REQUESTS", "")
        return int(told) if told.isdigit() else _DEFAULT_CONCURRENT

    def exploring(self, *, proving: bool) -> Mapping[str, str]:
        # Without chunked prefill a waiting prompt joins a full batch late otherwise.
        at_once = {"WAITING_SERVED_RATIO": "0"}
        # With several, a short prompt overtakes a long one while that is tokenised (router/src/validation.rs).
        return at_once if proving else {**at_once, "VALIDATION_WORKERS": "1"}

    def without_prefix_cache(self, version: Version) -> Mapping[str, str]:
        if version < (2, 3, 0):
            return {}
        return {"USE_PREFIX_CACHING" if version < (2, 4, 0) else "PREFIX_CACHING": "0"}

    def new_log(self) -> TgiLog:
        return TgiLog()

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
        document = client.page("/info").document
        return info.read_info(document) if info.is_info(document) else None

    def first_answer(self, client: Client, model_name: str, timeout: float) -> str | None:
        return ask_once(client, timeout)

    def limits_in_force(self, info: EngineInfo, log: StartLog, started_with: Invocation) -> Limits:
        """Its own word first, then its log, then what it was told."""

        def told(name: str) -> int | None:
            value = started_with.environment.get(name, "")
            return int(value) if re.fullmatch(r"\d{1,18}", value) else None

        limits, logged = info.limits, log.limits
        return replace(
            limits,
            max_input_tokens=limits.max_input_tokens or logged.max_input_tokens,
            max_total_tokens=limits.max_total_tokens or logged.max_total_tokens,
            max_batch_prefill_tokens=told("MAX_BATCH_PREFILL_TOKENS") or logged.max_batch_prefill_tokens,
            max_batch_total_tokens=logged.max_batch_total_tokens or limits.max_batch_total_tokens,
            max_concurrent_requests=limits.max_concurrent_requests or told("MAX_CONCURRENT_REQUESTS"),
            max_batch_size=limits.max_batch_size or told("MAX_BATCH_SIZE"),
        )

    def limit_names(self, version: Version) -> Mapping[str, str]:
        return {**options.LIMIT_NAMES, "max_input_tokens": options.input_limit_name(version)}

    def flags(self, limits: Limits, version: Version) -> Mapping[str, str]:
        values = options.limit_options(limits, version)
        return {
            name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items() if value
        }

    def memory_law(self, model: Model) -> MemoryLaw:
        return memory.law_of(model)

    def memory_flags(self, model: Model) -> Mapping[str, str]:
        return facts.memory_flags(model)

    def facts(self, info: EngineInfo, log: StartLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
        assert isinstance(log, TgiLog)
        return facts.facts_of(info, log, limits, given, model)

    def failed_start(self, failure: Failure, log: StartLog) -> FailedStart:
        assert isinstance(log, TgiLog)
        return facts.failed_start(failure, log)

    def read_gauges(self, page: str, others: Sequence[str] = ()) -> Gauges:
        return info.read_gauges(page)
