"""Types of the search: settings, what a start showed, loads, and their results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from harness.catalog.limits import Limits
from harness.engines.base import EngineFacts, FailureCause, Stage

Purpose = Literal["learn", "explore", "verify"]
Goal = Literal["balanced", "history", "chats", "latency"]
Verdict = Literal["held", "died", "stalled", "refused", "failed", "cut short", "preempted"]

LoadKind = Literal[
    "rows",  # short chats at once
    "overload",  # a few more of them than are let in
    "batch",  # equal chats, to see how fast they go
    "cell",  # of the card
    "longest",  # the longest chat alone
    "onto",  # a long prompt on top of short chats
    "fill",  # a budget of tokens, by prompts
    "alike",  # two long chats that begin alike, one after the other
    "write",  # a budget of tokens, by answers
    "input",  # a prompt at a limit
    "total",  # prompt and answer at a limit
    "after",  # one short chat, to see whether the engine still serves
]
_TITLES = {"longest": "longest chat", "alike": "two long chats that begin alike"}

OPEN_BUDGET = 1_000_000  # tokens in flight: no limit in practice
# What is given for no limit: flash models ignore it, padded ones reserve nothing for it. TGI's causal models count
# prompts that are read together with the answers of all, so that many count as the square of their number.
OPEN_FLAG = 1_000_000_000
HISTORY_SHARE = 0.1  # of the token budget, that `balanced` gives for a longer history
CHUNK = 1024  # largest piece in which TGI generates and reserves (router/src/validation.rs:25)


@dataclass(frozen=True)
class Setting(Limits):
    """The limits that one start is given; None leaves a limit to the engine.

    purpose: why the start is made: to learn what the engine is, to look for a boundary under load, or to prove a
    recommendation. prefix_caching: False turns the engine's prefix cache off, None leaves it.
    """

    purpose: Purpose = "learn"
    prefix_caching: bool | None = None

    @property
    def most_at_once(self) -> int:
        """Chats that may run beside each other: those that are let in, but for what waits beyond a batch."""
        let_in = self.max_concurrent_requests or 1
        return min(let_in, self.max_batch_size or let_in)

    def __str__(self) -> str:
        names = {
            "input": self.max_input_tokens,
            "total": self.max_total_tokens,
            "prefill": self.max_batch_prefill_tokens,
            "budget": self.max_batch_total_tokens,
            "requests": self.max_concurrent_requests,
            "batch": self.max_batch_size,
            "memory": self.cuda_memory_fraction,
        }
        given = [f"{name} {value:,}" for name, value in names.items() if value is not None]
        given += ["prefix cache off"] if self.prefix_caching is False else []
        return ", ".join(given) or "the engine's own limits"


@dataclass(frozen=True)
class Shape:
    """One request of a load, in tokens."""

    input_tokens: int
    max_new_tokens: int

    def reserved(self, speculate: int = 0) -> int:
        """Slots that a block-allocated engine keeps for it (backends/v3/src/queue.rs:315)."""
        return self.input_tokens + min(self.max_new_tokens, CHUNK) + speculate - 1

    @property
    def total(self) -> int:
        return self.input_tokens + self.max_new_tokens


@dataclass(frozen=True)
class Load:
    """Requests to send: each wave at once, the next wave when all of the wave before have their first token.

    kind: what the load asks. chats, budget, history: the sizes by which loads of one kind differ: chats at once, tokens
    in flight, prompt tokens of a chat; None where they are not what it is about. leave_after_tokens: the client leaves
    when every request has so many tokens; None waits for whole answers. expected_rejections: requests of the last wave
    that must be refused at once. queued: requests that must still wait when all others have their tokens.
    min_tokens_before_next_wave: answer tokens that all of a wave must have before the next one follows.
    target_tokens_in_flight: when the last prompts are read in, where that is not simply all of them. shared_tokens:
    with which all of its prompts begin alike. leading: so many requests, the only ones with one answer token, are read
    before others and then over: the first ones while the others arrive. stairs: of a load that climbs, (requests up to
    and with those of a step, tokens that are reserved when these are read, and chats beside each other then), step by
    step. stays: so many first requests are there at every step.
    """

    kind: LoadKind
    waves: tuple[tuple[Shape, ...], ...]
    chats: int | None = None
    budget: int | None = None
    history: int | None = None
    leave_after_tokens: int | None = None
    expected_rejections: int = 0
    queued: int = 0
    min_tokens_before_next_wave: int = 1
    target_tokens_in_flight: int | None = None
    shared_tokens: int = 0
    leading: int = 0
    stairs: tuple[tuple[int, int, int], ...] = ()
    stays: int = 0

    def leads(self, max_new_tokens: int) -> bool:
        """Whether a request with so many answer tokens is over before what the load is about."""
        return self.leading > 0 and max_new_tokens == 1

    @property
    def name(self) -> str:
        """For people, such as `fill 20000 by 4096`; two loads of one start that ask the same have the same name."""
        sizes = [str(size) for size in (self.chats, self.budget) if size is not None]
        if self.history is not None:
            sizes += [f"by {self.history}" if sizes else str(self.history)]
        return " ".join([_TITLES.get(self.kind, self.kind), *sizes])

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(shape for wave in self.waves for shape in wave)

    @property
    def rows(self) -> int:
        """Chats beside each other."""
        if self.stairs:
            return max(rows for *_, rows in self.stairs)
        return sum(len(wave) for wave in self.waves) - self.expected_rejections - self.queued - self.leading

    @cached_property
    def tokens(self) -> int:
        """Prompt and answer tokens of all requests together."""
        return sum(shape.total for shape in self.shapes)

    @property
    def size(self) -> int:
        """Tokens that are in flight at its fullest moment."""
        return self.tokens if self.target_tokens_in_flight is None else self.target_tokens_in_flight

    @property
    def area(self) -> int:
        """Tokens when every row is padded to the longest, as a model without flash attention keeps them."""
        return len(self.shapes) * max((shape.total for shape in self.shapes), default=0)

    @property
    def closing(self) -> int:
        """Prompt tokens of the last request: of a filled cache, what is read in when it is fullest."""
        return self.shapes[-1].input_tokens if self.shapes else 0

    @cached_property
    def longest(self) -> int:
        return max((shape.input_tokens for shape in self.shapes), default=0)


@dataclass(frozen=True)
class LoadResult:
    """What came of a load. Seconds and tokens.

    begun: requests that had their first token; begun_tokens: their prompts and answers together, which at a death is
    what the engine was known to carry. carried: most tokens in flight while a prompt was read, as the client saw them,
    None where nobody looked; at a death, what was in flight then. reads: the same at each step of a load that climbs,
    as far as it came. overtaken: prompts and answers of later steps that had begun before all of the next one. beside:
    most requests in flight while a prompt of the last wave was read. ended_early: answers that the model ended before
    they were as long as asked. refused: answers 429. ttft_p95, itl_p95: over all its requests, None without a value.
    rate: answer tokens per second while all were running. preempted: chats that the engine put back meanwhile by its
    own count, None where it has none. reason: of a verdict other than `held`.
    """

    load: Load
    verdict: Verdict
    begun: int = 0
    begun_tokens: int = 0
    carried: int | None = None
    beside: int | None = None
    reads: tuple[int, ...] = ()
    overtaken: int = 0
    completed: int = 0
    ended_early: int = 0
    refused: int = 0
    waited: int = 0
    ttft_p95: float | None = None
    itl_p95: float | None = None
    rate: float | None = None
    preempted: int | None = None
    seconds: float = 0.0
    reason: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a start failed or a running engine died. text: the engine's own words. exit_code: what the harness ends with
    if this is the end.
    """

    stage: Stage
    cause: FailureCause
    text: str
    exit_code: int = 4
    limit: int | None = None  # a budget that the engine named in the message, tokens
    fraction: float | None = None  # a share of the GPU's memory that is free, where the engine named it

    def __str__(self) -> str:
        return f"{self.text} ({self.stage})"


@dataclass(frozen=True)
class Outcome:
    """One start, from launch to stop.

    started: what its log showed, also of a start that failed, as far as it came. failure: None when nothing failed.
    """

    setting: Setting
    started: EngineFacts | None = None
    came_up: bool = False
    failure: Failure | None = None
    loads: tuple[LoadResult, ...] = ()
    seconds: float = 0.0

    @property
    def died_under_load(self) -> bool:
        return any(result.verdict == "died" for result in self.loads)


def effective_prefill(outcome: Outcome) -> int | None:
    """The prefill budget of a start: as given, else as the engine told."""
    if outcome.setting.max_batch_prefill_tokens is not None:
        return outcome.setting.max_batch_prefill_tokens
    return outcome.started.prefill_tokens if outcome.started else None


def same_limits(one: Setting, other: Setting) -> bool:
    """Whether two starts were given the same limits, whatever for."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in (
            "max_input_tokens",
            "max_total_tokens",
            "max_batch_prefill_tokens",
            "max_batch_total_tokens",
            "max_concurrent_requests",
            "max_batch_size",
            "cuda_memory_fraction",
            "prefix_caching",
        )
    )


@dataclass(frozen=True)
class Bracket:
    """Evidence for one limit: the largest value that worked, the smallest that failed, and how it failed."""

    largest_ok: int | None = None
    smallest_failed: int | None = None
    failure: str | None = None

    @classmethod
    def of(cls, held: Iterable[int], failed: Iterable[tuple[int, str]]) -> Bracket:
        """A success above a failure does not count: memory need not grow steadily, and what failed once may again."""
        smallest, how = min(failed, default=(None, None))
        return cls(max((value for value in held if smallest is None or value < smallest), default=None), smallest, how)

    @property
    def gap(self) -> float | None:
        """How far apart the two are, as a share of the larger; None while one is missing."""
        if self.largest_ok is None or self.smallest_failed is None:
            return None
        return (self.smallest_failed - self.largest_ok) / self.smallest_failed

    def as_json(self) -> dict[str, Any]:
        return {"largest_ok": self.largest_ok, "smallest_failed": self.smallest_failed, "failure": self.failure}


@dataclass(frozen=True)
class Prior:
    """What is known before the first start; None where nothing is.

    context: the model's own maximum. budget: tokens of KV cache that the memory model expects. kv_bytes: per token, on
    each GPU. memory_bytes: of one GPU. prefill_share: activation bytes of one prefill token over kv_bytes.
    """

    context: int | None = None
    budget: int | None = None
    kv_bytes: float | None = None
    memory_bytes: int | None = None
    prefill_share: float | None = None
    version: tuple[int, int, int] = (3, 3, 7)


@dataclass(frozen=True)
class ProbeGoal:
    """What the user asked for. precision: share of a boundary at which the search for it stops. itl, ttft: the SLO's
    bounds on p95 in seconds, None without one. history_share: of the token budget, that a longer history may cost.
    """

    goal: Goal = "balanced"
    answer_tokens: int = 512
    max_starts: int = 8
    quick: bool = False
    precision: float = 0.01
    history_share: float = HISTORY_SHARE
    itl: float | None = None
    ttft: float | None = None
