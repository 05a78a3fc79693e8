"""The protocol of an engine, which each folder here implements, and the types that it uses.

An Engine says how it is started (Invocation, Container), what its log means (StartLog, Failure), how it is recognised
and asked (Client, Api), what its pages tell (EngineInfo, Gauges), and how its limits are called. Nobody else knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.api import Extras
from harness.engines.client import Client
from harness.engines.failure import Failure
from harness.engines.gauges import Gauges
from harness.engines.migration import Guide
from harness.engines.support import Architectures


@dataclass(frozen=True)
class EngineInfo:
    """Who answers at an endpoint. engine: a name of ENGINES or of another kind of server that is known by its answers.

    emulated: it said of itself that it is the emulator. model_names: by which it may be asked; raw: its own page.
    caution: what whoever measures such a server must know; None for an engine, which tells its own.
    """

    engine: str
    version: str | None
    model_id: str | None
    emulated: bool
    limits: Limits
    raw: Mapping[str, object] = field(default_factory=dict)
    model_names: tuple[str, ...] = ()
    caution: str | None = None


# ---- how an engine is started


@dataclass(frozen=True)
class Place:
    """Where a start is to run. host, port: that it listens on. model_path: of a local model as the engine sees it; None
    takes the entry's repo. container: it is alone there. scratch: beginning of paths that are its own on this host;
    free_port: gives a port that nobody else uses; both None where the place is the engine's alone.
    """

    host: str
    port: int
    model_path: str | None = None
    container: bool = False
    scratch: str | None = None
    free_port: Callable[[], int] | None = None


@dataclass(frozen=True)
class Invocation:
    """What a program or an image is started with: arguments in order, and environment variables."""

    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


Accelerator = Literal["nvidia", "devices", "none"]


@dataclass(frozen=True)
class Hardware:
    """What a container of one kind of image needs of its host.

    accelerator: `nvidia` is reserved by device id; `devices` are handed in as files; `none` needs nothing. visible: the
    variable that leaves some of the devices to a container. read_only: whether all but the cache and the places of
    compose/service.yaml may be kept read-only. resource: what Kubernetes' device plugin calls such a GPU; None where
    several do, by different names.
    """

    suffix: str = ""
    accelerator: Accelerator = "none"
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    runtime: str | None = None
    privileged: bool = False
    host_ipc: bool = False
    visible: str | None = None
    read_only: bool = False
    resource: str | None = "nvidia.com/gpu"


NVIDIA = Hardware(accelerator="nvidia")


@dataclass(frozen=True)
class Container:
    """How an engine's image is run for one entry.

    entrypoint: instead of the image's own, empty for that; plain_entrypoint: the same where no token file is there.
    cache_volume, cache_target: where models are kept. token_places: files that hold the Hub token; token_variable:
    where the engine takes it from its environment. shared_memory: size of /dev/shm such as `1gb`; None for the default.
    """

    image: str
    hardware: Hardware
    cache_volume: str
    cache_target: str
    entrypoint: tuple[str, ...] = ()
    plain_entrypoint: tuple[str, ...] = ()
    token_places: tuple[str, ...] = ()
    token_variable: str = "HF_TOKEN"
    shared_memory: str | None = None


# ---- what a start says

KEPT_LINES = 4000
PHASES = ("starting", "downloading", "loading", "warming up", "connected")


class StartLog:
    """What a start's log has said so far; `feed` it line by line.

    phase: of PHASES. detail: the latest progress within it. limits: as far as the log tells them, the token budget in
    `max_batch_total_tokens`. lines: the last lines, oldest first. A subclass understands one engine's lines.
    """

    def __init__(self) -> None:
        self.phase, self.detail = "starting", ""
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def limits(self) -> Limits:
        return Limits()

    def understand(self, line: str) -> None:
        """Take from one line what it tells."""

    def feed(self, line: str) -> bool:
        """Read one line. True when phase or detail changed."""
        self.lines.append(line)
        before = (self.phase, self.detail)
        self.understand(line)
        return (self.phase, self.detail) != before

    def feed_all(self, lines: Iterable[str]) -> bool:
        """Read several lines. True when phase or detail changed in one of them."""
        changes = [self.feed(line) for line in lines]
        return any(changes)

    def enter(self, phase: str, detail: str = "") -> None:
        """Phases only go forward: lines of several processes may come in another order than they were written in."""
        if PHASES.index(phase) >= PHASES.index(self.phase):
            self.phase, self.detail = phase, detail

    def tail(self, count: int = 15) -> list[str]:
        """The last lines that are not empty."""
        return [line for line in self.lines if line.strip()][-count:]


EngineKind = Literal["flash", "padded", "unchecked", "pool"]
Stage = Literal["launch", "load", "warm-up", "limits", "ready", "under load"]
FailureCause = Literal["memory", "argument", "missing", "budget", "hang", "other"]


@dataclass(frozen=True)
class EngineFacts:
    """What a start that came up showed: from its log and from /info. Tokens; seconds until it answered.

    kind: `flash` measures its own KV memory and reserves it at admission, `padded` says that it cannot, `unchecked`
    says neither; `pool` tells the size of a pool of blocks in which running requests grow. budget: tokens of the KV
    cache as the engine tells them (on padded models just the option; of a pool what requests can really get at once).
    blocks: the KV cache's blocks, one of which no request gets. prefill_tokens: the budget of one prefill in effect.
    context: that the model was made for. rows: requests that generate at once at most. split: the pool is cut into
    `rows` equal shares of max_total_tokens each.
    """

    kind: EngineKind
    chunking: bool = False
    budget: int | None = None
    block_size: int = 1
    blocks: int | None = None
    prefill_tokens: int | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_concurrent_requests: int | None = None
    context: int | None = None
    rows: int | None = None
    split: bool = False
    prefix_caching: bool = False
    speculate: int = 0
    version: str | None = None
    image: str | None = None
    emulated: bool = False
    seconds: float = 0.0

    @property
    def usable(self) -> int | None:
        """Tokens that requests can really get at once: the budget without the reserved block, in whole blocks.

        backends/v3/src/block_allocator.rs hands out blocks 1 to n - 1; a padded model has no blocks.
        """
        if self.budget is None:
            return None
        if self.kind != "flash":
            return self.budget
        return max(0, self.budget // self.block_size - 1) * self.block_size


@dataclass(frozen=True)
class FailedStart:
    """What a failed start means to whoever looks for limits. stage: how far it came. cause: whether other limits can
    help. limit: a budget in tokens that the engine named; fraction: a share of the GPU's memory that is free. facts:
    what it told before, None where nothing.
    """

    stage: Stage
    cause: FailureCause
    limit: int | None = None
    fraction: float | None = None
    facts: EngineFacts | None = None


@dataclass(frozen=True)
class MemoryLaw:
    """Which arithmetic says how large the KV cache of an entry becomes. name: of simulator/fit.LAWS. options: what that
    law reads of the entry beside shape, GPUs and dtypes, by the law's own names.

    needs: least compute capability, and what is said of a card that has less. lighter: methods of `quantize` that make
    weights smaller as they are loaded, from the one that changes least.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[tuple[tuple[int, int], str], ...] = ()
    lighter: tuple[str, ...] = ()


OnFullCache = Literal["waits", "dies", "preempts", "retracts", "ends answers"]


class Engine(Protocol):
    """One serving engine: all that differs between it and another."""

    name: str  # of `engine: {name: ...}` in an entry
    title: str  # for people
    app: str  # the value of app.kubernetes.io/name
    program: tuple[str, ...]  # how a process of this host is started where neither entry nor option names a program
    default_api: str  # of APIS; bare_api: the one that takes a prompt unchanged, without a chat template
    bare_api: str
    extras: Extras  # fields of a body that it knows beside the common ones
    health_path: str
    queue_metric: str  # gauge of its /metrics page: requests that wait
    default_drain: int  # seconds that it gives open requests after SIGTERM
    on_full_cache: OnFullCache
    gauge_pages: tuple[str, ...]  # paths that tell of its work beside /metrics
    accepts: Accepts
    architectures: Architectures  # which models it serves, by release

    def version(self, text: str) -> Version:
        """A release of this engine. Raises UsageError for a text that is none."""
        ...

    def told_version(self, output: str) -> str | None:
        """The release in what `PROGRAM --version` printed; None where there is none."""
        ...

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        """How this release serves the entry there.

        revision: instead of the entry's. changes: further environment variables, or other values; an empty value takes
        one away. Raises UsageError for what this release does not know or the engine does not have, naming the nearest.
        """
        ...

    def container(self, model: Model, version: Version, *, with_token: bool) -> Container:
        """How the image of this release is run. Raises UsageError for a variant that it does not have."""
        ...

    def forgotten_variables(self) -> frozenset[str]:
        """Names that the engine reads and that must not come from the user's own environment; a trailing `*` matches
        whatever follows.
        """
        ...

    def devices_variables(self) -> frozenset[str]:
        """Variables that leave some of another maker's devices to a container."""
        ...

    def drain_seconds(self, started_with: Invocation) -> int | None:
        """What the entry itself gives open requests after SIGTERM; None where it says nothing."""
        ...

    def without_limits(self, args: Sequence[str], limits: Collection[str]) -> tuple[str, ...]:
        """An entry's own arguments without those that set these limits of ours."""
        ...

    def served_name(self, entry: str) -> str:
        """What the `model` field of a request says for an entry of this name."""
        ...

    def concurrent(self, started_with: Invocation) -> int:
        """Requests that one instance takes at once."""
        ...

    def exploring(self, *, proving: bool) -> Mapping[str, str]:
        """Environment that makes the engine take waiting requests at once, and in just the order in which they came,
        while a boundary is searched under load. proving: only what is then among the flags to set.
        """
        ...

    def without_prefix_cache(self, version: Version) -> Mapping[str, str]:
        """Environment that turns the prefix cache of this release off; empty where it has none that must be."""
        ...

    def new_log(self) -> StartLog: ...

    def explain(
        self,
        lines: Sequence[str],
        exit_code: int | None = None,
        *,
        memory_limit_hit: bool = False,
        serving: bool = False,
    ) -> Failure:
        """Why it did not start, or died. memory_limit_hit: of the container. serving: it had been ready."""
        ...

    def recognise(self, client: Client) -> EngineInfo | None:
        """Whether this engine answers there, by a few GETs; None where another does. Raises like Client.get."""
        ...

    def first_answer(self, client: Client, model_name: str, timeout: float) -> str | None:
        """Generate one token. None when that worked, else what went wrong. timeout: seconds."""
        ...

    def limits_in_force(self, info: EngineInfo, log: StartLog, started_with: Invocation) -> Limits:
        """What it allows now: by its pages, its log, and what it was started with."""
        ...

    def cautions(self, limits: Limits, log: StartLog, started_with: Invocation) -> Sequence[str]:
        """What whoever measures it must know of how it runs, a line each; empty where all is as asked for."""
        ...

    def read_gauges(self, page: str, others: Sequence[str] = ()) -> Gauges:
        """From a page of its /metrics, and those of gauge_pages in their order; one that did not answer is empty."""
        ...

    def guides(self) -> Mapping[str, Guide]:
        """How entries of other engines are said to this one, by the other's name."""
        ...

    def limit_names(self, version: Version) -> Mapping[str, str]:
        """What this release calls each of our limits, for showing; those that it does not have are left out."""
        ...

    def flags(self, limits: Limits, version: Version) -> Mapping[str, str]:
        """The limits as this release's own options, by name: what a user sets. Raises UsageError for a limit that the
        engine does not have, naming the nearest that it has.
        """
        ...

    def memory_law(self, model: Model) -> MemoryLaw | None:
        """Which arithmetic gives the entry's memory before a start; None where it is not."""
        ...

    def memory_flags(self, model: Model) -> Mapping[str, str]:
        """What else of the entry moves memory, or how prompts are read, under the engine's names: without it limits
        that were found would not hold.
        """
        ...

    def facts(self, info: EngineInfo, log: StartLog, limits: Limits, given: Limits, model: Model) -> EngineFacts:
        """What a start that came up shows. limits: in force. given: that it was started with."""
        ...

    def failed_start(self, failure: Failure, log: StartLog) -> FailedStart: ...
