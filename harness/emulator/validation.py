"""The router's checks before a request may queue: their order and texts (router/src/validation.rs)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.emulator.bodies import Ask, Parameters
from harness.emulator.grammar import check_grammar
from harness.emulator.problems import invalid
from harness.emulator.tokens import AnyTokenizer, Encoding

CHUNK = 1024  # new tokens that one turn in the queue may generate


@dataclass(frozen=True)
class Limits:
    """The router's limits, in tokens or counts."""

    max_input_tokens: int
    max_total_tokens: int
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    grammar_support: bool = True


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """A request that may queue. max_new_tokens: of this turn; wanted: of all turns. seed: given or drawn."""

    encoding: Encoding
    max_new_tokens: int
    wanted: int
    seed: int
    sampling: bool
    top_n_tokens: int
    plan: str | None

    @property
    def input_length(self) -> int:
        return len(self.encoding)


def check_best_of(best_of: int, limits: Limits) -> None:
    """The limit of `best_of`, looked at before the concurrency limit."""
    if limits.max_best_of == 1 and best_of != 1:
        raise invalid("`best_of` != 1 is not allowed for this endpoint")
    if best_of > limits.max_best_of:
        raise invalid(f"`best_of` must be > 0 and <= {limits.max_best_of}. Given: {best_of}")


def _check_sampling(p: Parameters) -> None:
    if p.temperature is not None and not p.temperature > 0.0:
        raise invalid("`temperature` must be strictly positive")
    if p.repetition_penalty is not None and not p.repetition_penalty > 0.0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if p.frequency_penalty is not None and not -2.0 <= p.frequency_penalty <= 2.0:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if p.top_p is not None and not 0.0 < p.top_p < 1.0:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if p.typical_p is not None and not 0.0 < p.typical_p < 1.0:
        raise invalid("`typical_p` must be > 0.0 and < 1.0")
    if p.top_k is not None and p.top_k <= 0:
        raise invalid("`top_k` must be strictly positive")


def _check_rest(ask: Ask, limits: Limits) -> None:
    p = ask.parameters
    if p.max_new_tokens == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if len(p.stop) > limits.max_stop_sequences:
        raise invalid(f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(p.stop)}")
    if p.seed is not None and (p.best_of or 1) > 1:
        raise invalid("`seed` must not be set when `best_of` > 1")
    if p.top_n_tokens is not None and p.top_n_tokens > limits.max_top_n_tokens:
        raise invalid(f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {p.top_n_tokens}")
    if not ask.inputs:
        raise invalid("`inputs` cannot be empty")
    if p.truncate is not None and not 0 < p.truncate <= limits.max_input_tokens:
        raise invalid(
            f"`truncate` must be strictly positive and less than {limits.max_input_tokens}. Given: {p.truncate}"
        )


def _lengths(p: Parameters, input_length: int, limits: Limits) -> tuple[int, int]:
    """New tokens of this turn, and wanted in all."""
    wanted = p.max_new_tokens
    if wanted is None:
        wanted = max(0, limits.max_total_tokens - input_length)
    new = min(wanted, CHUNK)
    if input_length + new > limits.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}."
            f" Given: {input_length} `inputs` tokens and {new} `max_new_tokens`"
        )
    if input_length > limits.max_input_tokens:
        raise invalid(f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {input_length}")
    return new, wanted


def samples(p: Parameters) -> bool:
    """Whether the shard draws tokens: any setting that differs from its neutral value switches it on."""
    return (
        p.do_sample
        or p.temperature not in (None, 1.0)
        or p.top_k is not None
        or p.top_p is not None
        or p.typical_p is not None
    )


@dataclass(frozen=True, slots=True)
class MeasuredRequest:
    """A request whose parameters and length are fine; only its grammar has not been looked at."""

    ask: Ask
    encoding: Encoding
    max_new_tokens: int
    wanted: int


class Validation:
    """All checks of one server."""

    def __init__(self, limits: Limits, tokenizer: AnyTokenizer) -> None:
        self.limits, self.tokenizer = limits, tokenizer

    def measure(self, ask: Ask) -> MeasuredRequest:
        """Parameters, then the length in tokens. Raises Refused."""
        p = ask.parameters
        drawn = p.do_sample or any(v is not None for v in (p.temperature, p.top_k, p.top_p, p.typical_p))
        if (p.best_of or 1) > 1 and not drawn:
            raise invalid("you must use sampling when `best_of` is > 1")
        _check_sampling(p)
        _check_rest(ask, self.limits)
        encoding = self.tokenizer.encode(ask.inputs, ask.special_tokens)
        if p.truncate is not None:
            encoding = encoding.last(p.truncate)
        new, wanted = _lengths(p, len(encoding), self.limits)
        return MeasuredRequest(ask, encoding, new, wanted)

    def complete(self, measured: MeasuredRequest) -> ValidRequest:
        """The request, ready to queue. Raises Refused for its grammar."""
        p = measured.ask.parameters
        plan = check_grammar(p.grammar, self.limits.grammar_support) if p.grammar is not None else None
        seed = p.seed if p.seed is not None else random.getrandbits(64)
        new, wanted = measured.max_new_tokens, measured.wanted
        return ValidRequest(measured.encoding, new, wanted, seed, samples(p), p.top_n_tokens or 0, plan)
