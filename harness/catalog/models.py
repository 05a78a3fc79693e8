"""models.yaml -> Model: what can be served, with its limits and its SLO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.catalog.slo import Slo


@dataclass(frozen=True)
class EngineChoice:
    """Which engine serves: its name and version, or an image, or a command that replaces it. image, command: as given."""

    name: str = "tgi"
    version: str = "3.3.7"
    image: str | None = None
    command: tuple[str, ...] = ()
    variant: str = "cuda"


@dataclass(frozen=True)
class Limits:
    """TGI's limits as the entry sets them, in tokens or requests; None leaves one to the engine."""

    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_concurrent_requests: int | None = None
    max_batch_size: int | None = None


@dataclass(frozen=True)
class Model:
    """One entry of models.yaml, defaults applied. start_timeout: seconds. price_per_gpu_hour: USD."""

    name: str
    repo: str
    revision: str | None = None
    gpu: str | None = None
    gpus: int = 1
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    engine: EngineChoice = EngineChoice()
    limits: Limits = Limits()
    slo: Slo = Slo()
    env: Mapping[str, str] = field(default_factory=dict)
    price_per_gpu_hour: float | None = None
    context_length: int | None = None
    answer_tokens: int | None = None
    start_timeout: float = 1200.0
    replicas: int = 1
    port: int | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Catalogue:
    """All entries of one file, in its order."""

    path: str
    models: Mapping[str, Model]
