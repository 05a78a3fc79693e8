"""Whether a model fits a GPU, by the memory law of its engine: one question, one kind of answer.

An engine names its law and hands over what that law reads of an entry (engines/base.MemoryLaw); LAWS has the laws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.catalog.gpus import Gpu
from harness.catalog.shapes import ModelShape
from harness.errors import UsageError
from harness.simulator import memory, under_load
from harness.simulator.laws import (
    DoesNotStart,
    LlamaPlan,
    Machine,
    Pool,
    SglangPlan,
    VllmPlan,
    llama_pool,
    sglang_pool,
    vllm_pool,
)
from harness.simulator.memory import Budget, Part, ServingPlan
from harness.simulator.world import World
from harness.units import format_bytes, format_count


@dataclass(frozen=True)
class Candidate:
    """A model on GPUs of one kind. quantize: how its weights are stored, by the catalogue's names. law: of LAWS.

    options: what that law is told besides, by its own names; an unknown one is a mistake of whoever asks. weight_bytes:
    of all weights as they are loaded, where that is known better than from the shape.
    """

    law: str
    shape: ModelShape
    gpu: Gpu
    shards: int = 1
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    world: World = field(default_factory=World)
    weight_bytes: int | None = None


A_CHAT = 2048
"""Tokens of the chats that are counted where one may be longer."""


@dataclass(frozen=True)
class Fits:
    """It starts. tokens: of the KV cache as the engine tells it. usable_tokens: what requests can get at once.

    max_total_tokens: of one request. max_batch_prefill_tokens: of one step. parts: per GPU, they sum up to its memory
    or to the share of it that the engine takes. contradiction: what it refuses all the same once it knows its memory.
    caution: what makes it serve worse than this looks. chats: of A_CHAT tokens, where such a one takes more per token
    than one of the whole context does: windows that are not filled yet, states of a fixed size. may_die: why it may end
    under load although it starts.
    """

    tokens: int
    usable_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    parts: tuple[Part, ...]
    total_bytes: int
    contradiction: str | None = None
    caution: str | None = None
    chats: int | None = None
    may_die: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoesNotFit:
    """It does not start. doing: what it is at then. text: the engine's own. parts: what would have to fit, per GPU.

    longest: the longest request that would fit, None where that is not what it fails at.
    """

    doing: str
    text: str
    parts: tuple[Part, ...]
    missing_bytes: int
    total_bytes: int
    longest: int | None = None


Outcome = Fits | DoesNotFit


@dataclass(frozen=True)
class Law:
    """One engine's arithmetic. start: raises UsageError for shards that do not divide the heads. refusal: what the
    engine does not do with this model or card whatever the memory. estimate: what the figures rest on, where that is
    less than the engine's own measured starts.
    """

    start: Callable[[Candidate], Outcome]
    refusal: Callable[[Candidate], str | None] = lambda candidate: None
    estimate: str = ""


def start(candidate: Candidate) -> Outcome:
    """What a start would come to. Raises UsageError for shards that do not divide the heads."""
    return LAWS[candidate.law].start(candidate)


def refusal(candidate: Candidate) -> str | None:
    """Why it is not even tried, None where nothing is in the way."""
    return LAWS[candidate.law].refusal(candidate)


def fits(candidate: Candidate) -> bool:
    """Whether it starts and serves."""
    if refusal(candidate) is not None:
        return False
    try:
        outcome = start(candidate)
    except UsageError:
        return False
    return isinstance(outcome, Fits) and outcome.contradiction is None


WEIGHTS = frozenset({"weights", "weights of the layers", "embedding", "output head"})


def weights_bytes(outcome: Outcome) -> int:
    """Of the weights on one GPU."""
    return sum(part.bytes for part in outcome.parts if part.name in WEIGHTS)


def describe(outcome: Outcome) -> str:
    """The sum with its parts, one line each, for people."""
    lines = [f"{format_bytes(part.bytes):>10}  {part.name}" for part in outcome.parts]
    lines.append(f"{format_bytes(outcome.total_bytes):>10}  GPU memory")
    if isinstance(outcome, DoesNotFit):
        lines.append(f"{format_bytes(outcome.missing_bytes):>10}  missing: {outcome.text}")
    return "\n".join(lines)


# ---- TGI


def _tgi_plan(candidate: Candidate) -> ServingPlan:
    return ServingPlan(
        shape=candidate.shape,
        gpu=candidate.gpu,
        shards=candidate.shards,
        dtype=candidate.dtype,
        quantize=candidate.quantize,
        kv_cache_dtype=candidate.kv_cache_dtype,
        weight_bytes=candidate.weight_bytes,
        **candidate.options,
    )


def _tgi_start(candidate: Candidate) -> Outcome:
    plan = _tgi_plan(candidate)
    outcome = memory.budget(plan, candidate.world)
    if isinstance(outcome, memory.NotEnoughMemory):
        doing = "loading the weights" if outcome.stage == "load" else "the warm-up"
        return DoesNotFit(doing, outcome.text, outcome.parts, outcome.missing_bytes, outcome.total_bytes)
    return Fits(
        tokens=outcome.tokens,
        usable_tokens=outcome.usable_tokens,
        max_total_tokens=outcome.max_total_tokens,
        max_batch_prefill_tokens=outcome.max_batch_prefill_tokens,
        parts=outcome.parts,
        total_bytes=outcome.total_bytes,
        contradiction=_tgi_contradiction(plan, outcome),
        may_die=under_load.of_tgi(plan, candidate.world, outcome),
    )


def _tgi_refusal(candidate: Candidate) -> str | None:
    attention = memory.resolve(_tgi_plan(candidate)).attention
    if candidate.kv_cache_dtype is not None and attention == "flashdecoding":
        # server/text_generation_server/layers/attention/kv_cache.py:68-84
        return f"its attention is flashdecoding, for which there is no KV cache of {candidate.kv_cache_dtype}"
    if candidate.quantize == "exl2" and candidate.shards > 1:
        return "quantize: exl2 works on one GPU only"  # launcher/src/main.rs:2091-2096
    return None


def _tgi_contradiction(plan: ServingPlan, start: Budget) -> str | None:
    """Limits that the router refuses once it knows the budget (backends/v3/src/main.rs:180-196, lib.rs:98-107)."""
    tokens = format_count(start.tokens)
    if start.max_total_tokens > start.tokens:
        return f"max_total_tokens {format_count(start.max_total_tokens)} exceeds the KV cache of {tokens} tokens"
    if start.max_batch_prefill_tokens > start.tokens:
        prefill = format_count(start.max_batch_prefill_tokens)
        return f"max_batch_prefill_tokens {prefill} exceeds the KV cache of {tokens} tokens; set it lower"
    if not memory.resolve(plan).chunking and start.max_batch_prefill_tokens < start.max_input_tokens:
        return (
            f"max_batch_prefill_tokens {format_count(start.max_batch_prefill_tokens)} is below max_input_tokens "
            f"{format_count(start.max_input_tokens)}, and this model's prompts are not read in chunks"
        )
    return None


# ---- engines whose requests grow in a pool


def _machine(candidate: Candidate) -> Machine:
    return Machine(
        shape=candidate.shape,
        gpu=candidate.gpu,
        shards=candidate.shards,
        dtype=candidate.dtype,
        quantize=candidate.quantize,
        kv_cache_dtype=candidate.kv_cache_dtype,
        world=candidate.world,
        weight_bytes=candidate.weight_bytes,
    )


def _vllm_start(candidate: Candidate) -> Outcome:
    plan = VllmPlan(_machine(candidate), **candidate.options)
    pool = vllm_pool(plan)
    outcome, shape = _of_pool(pool), candidate.shape
    if isinstance(pool, DoesNotStart) or isinstance(outcome, DoesNotFit):
        return outcome
    outcome = replace(outcome, may_die=under_load.of_vllm(plan, pool))
    if not shape.state_values and not shape.window:
        return outcome
    short = plan.machine.kv_bytes_of_request(min(A_CHAT, plan.context), plan.step[0], plan.block_size)
    return replace(outcome, chats=min(outcome.usable_tokens // A_CHAT, pool.available_bytes // short))


def _sglang_start(candidate: Candidate) -> Outcome:
    plan = SglangPlan(_machine(candidate), **candidate.options)
    outcome = _of_pool(sglang_pool(plan))
    if isinstance(outcome, DoesNotFit):
        return outcome
    longest = outcome.max_total_tokens - 1  # the last token of an answer is cut too
    return replace(outcome, max_total_tokens=longest, may_die=under_load.of_sglang(plan))


def _llamacpp_start(candidate: Candidate) -> Outcome:
    machine = replace(_machine(candidate), kv_cache_dtype=None)  # its types are options of the law
    return _of_pool(llama_pool(LlamaPlan(machine, **candidate.options)))


_DOING = {"busy": "its share of the GPU", "load": "loading the weights", "warmup": "the KV cache"}


def _of_pool(outcome: Pool | DoesNotStart) -> Outcome:
    if isinstance(outcome, DoesNotStart):
        return DoesNotFit(
            _DOING[outcome.stage],
            outcome.text,
            outcome.parts,
            outcome.missing_bytes,
            outcome.total_bytes,
            outcome.longest,
        )
    return Fits(
        tokens=outcome.tokens,
        usable_tokens=outcome.usable_tokens,
        max_total_tokens=outcome.context,
        max_batch_prefill_tokens=outcome.step_tokens,
        parts=outcome.parts,
        total_bytes=outcome.total_bytes,
        caution=f"{outcome.on_host:.0%} of its layers stay in main memory" if outcome.on_host else None,
    )


LAWS: Mapping[str, Law] = {
    "tgi": Law(_tgi_start, _tgi_refusal),
    "vllm": Law(_vllm_start, estimate="an estimate, fitted to logged starts on H100"),
    "sglang": Law(_sglang_start, estimate="an estimate by SGLang's own rules, fitted to no start"),
    "llamacpp": Law(_llamacpp_start, estimate="an estimate by llama.cpp's own rules, fitted to no start"),
}
"""By the name that an engine gives; every one has its own options."""
