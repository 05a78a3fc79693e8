"""What a start of vLLM tells a prober, and what it says is in force."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named
from harness.engines.base import EngineInfo, Invocation
from harness.engines.vllm.facts import usable_tokens
from harness.engines.vllm.info import CacheConfig
from harness.engines.vllm.log import VllmLog
from tests.engines.vllm.test_log import read

VLLM = engine_named("vllm")
MODEL = Model("tiny", "acme/tiny-chat", engine=EngineChoice("vllm", "0.32.0"))


NOTHING, NO_CACHE = Limits(), CacheConfig()


def info(limits: Limits = NOTHING, cache: CacheConfig = NO_CACHE) -> EngineInfo:
    return EngineInfo("vllm", "0.32.0", "acme/tiny-chat", False, limits, {"cache": vars(cache)})


def test_limits_from_pages_log_and_arguments() -> None:
    """The pages' word first, then the log's; what neither tells is what it was started with, or certain by default."""
    started = Invocation(("acme/tiny-chat", "--max-num-queued-reqs", "40", "--max-model-len", "6000"))
    limits = VLLM.limits_in_force(
        info(Limits(max_total_tokens=5999, cuda_memory_fraction=0.9)), read("0.32.0"), started
    )
    assert limits == Limits(
        max_total_tokens=5999,
        max_batch_prefill_tokens=2048,
        max_batch_total_tokens=98288,
        max_batch_size=256,  # by default beside a step of 2,048 tokens
        max_concurrent_requests=40,
        cuda_memory_fraction=0.9,
    )


def test_arguments_that_the_log_tells() -> None:
    """What somebody else started it with stands in its log."""
    limits = VLLM.limits_in_force(info(), read("0.21.0"), Invocation())
    assert (limits.max_batch_size, limits.max_total_tokens) == (96, 8192)


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        ((), 1024),
        (("--max-num-seqs", "12"), 12),
        (("--max-num-batched-tokens", "8192"), None),  # then the default depends on the card
        (("--performance-mode", "throughput"), None),
        (("--max_num_seqs=7",), 7),
    ],
)
def test_rows_are_told_only_where_they_are_certain(args: tuple[str, ...], rows: int | None) -> None:
    """The number of running requests follows from the step's budget only where both are vLLM's own choice."""
    log = VllmLog(max_num_batched_tokens=8192, device="GPU")
    assert VLLM.limits_in_force(info(), log, Invocation(args)).max_batch_size == rows


def test_processors_have_other_defaults() -> None:
    """On a CPU the same step's budget goes with another number of requests."""
    log = VllmLog(max_num_batched_tokens=2048, device="CPU")
    assert VLLM.limits_in_force(info(), log, Invocation()).max_batch_size is None


def test_null_block_is_no_requests() -> None:
    """The pool is a block less than what is printed, whether the metrics or only the log tell it."""
    cache = CacheConfig(blocks=6143, block_size=16, tokens=98288, prefix_caching=True)
    limits = VLLM.limits_in_force(info(cache=cache), read("0.32.0"), Invocation())
    facts = VLLM.facts(info(cache=cache), read("0.32.0"), limits, Limits(), MODEL)
    assert (facts.kind, facts.budget, facts.usable, facts.block_size) == ("pool", 6142 * 16, 6142 * 16, 16)
    assert (facts.max_total_tokens, facts.max_input_tokens, facts.rows) == (6000, 5999, 256)
    assert (facts.chunking, facts.prefix_caching, facts.prefill_tokens) == (True, True, 2048)
    by_log = VLLM.facts(info(), read("0.32.0"), limits, Limits(), MODEL)
    assert by_log.budget == facts.budget


@given(blocks=st.integers(2, 200_000), size=st.sampled_from([8, 16, 32, 64]), longest=st.integers(1, 300_000))
def test_blocks_come_back_from_the_printed_size(blocks: int, size: int, longest: int) -> None:
    """From the size as newer and as older releases print it, the pool is found to the block and never too large."""
    per_request = -(-longest // size)
    assume(per_request <= blocks - 1)  # else vLLM does not start
    assert usable_tokens(None, size, blocks * size, longest) == (blocks - 1) * size
    printed = int(blocks / per_request * longest)
    for known in (usable_tokens(blocks, size, printed, longest), usable_tokens(None, size, printed, longest)):
        assert known is not None
        assert known <= (blocks - 1) * size
        if longest >= 100 * size:
            assert known >= 0.98 * (blocks - 1) * size - size


def test_layers_of_different_lengths_have_a_size_of_their_own() -> None:
    """Where the printed size is not blocks times block size, the null block's share is taken off it."""
    assert usable_tokens(1001, 16, 40_000, 8192) == 40_000 * 1000 // 1001


@pytest.mark.parametrize(
    ("args", "chunking", "prefix", "drafts", "size"),
    [
        ((), True, True, 0, 16),
        (("--no-enable-chunked-prefill",), False, True, 0, 16),
        (("--no-enable-prefix-caching", "--block-size", "32"), True, False, 0, 32),
        (("--speculative-config", '{"method":"ngram","num_speculative_tokens":3}'), True, True, 3, 16),
        (("--spec-tokens", "5"), True, True, 5, 16),
        (("--speculative-config", "file.json"), True, True, 0, 16),
    ],
)
def test_arguments_of_the_entry_count(
    args: tuple[str, ...], chunking: bool, prefix: bool, drafts: int, size: int
) -> None:
    """How prompts are read, whether the prefix cache answers, drafts per step, and the block size."""
    model = replace(MODEL, engine=replace(MODEL.engine, args=args))
    facts = VLLM.facts(info(), VllmLog(), Limits(), Limits(), model)
    assert (facts.chunking, facts.prefix_caching, facts.speculate, facts.block_size) == (chunking, prefix, drafts, size)


def test_what_moves_memory_has_to_stay() -> None:
    """Limits that were found hold only beside the arguments that they were found with."""
    model = replace(
        MODEL,
        dtype="float16",
        limits=Limits(cuda_memory_fraction=0.9),
        engine=replace(MODEL.engine, args=("--enforce-eager", "--tool-call-parser", "hermes", "--block-size", "32")),
    )
    assert VLLM.memory_flags(model) == {
        "--dtype": "float16",
        "--gpu-memory-utilization": "0.9",
        "--enforce-eager": "",
        "--block-size": "32",
    }


FITS = (
    "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (9.52 GiB). Based on the available memory, the estimated"
    " maximum model length is 77968."
)


@pytest.mark.parametrize(
    ("phase", "line", "stage", "cause", "limit"),
    [
        ("warming up", FITS, "limits", "budget", 77968),
        ("loading", "torch.OutOfMemoryError: CUDA out of memory. Tried", "load", "memory", None),
        ("warming up", "ValueError: No available memory for the cache blocks.", "warm-up", "memory", None),
        ("starting", "vllm serve: error: unrecognized arguments: --x", "launch", "argument", None),
        (
            "starting",
            "max_num_batched_tokens (12) must be greater than or equal to max_num_seqs (256).",
            "limits",
            "argument",
            None,
        ),
        ("starting", "World size (4) is larger than the number of available GPUs (2)", "launch", "missing", None),
        ("loading", "Engine core initialization failed.", "load", "other", None),
    ],
)
def test_failed_start_says_what_can_help(phase: str, line: str, stage: str, cause: str, limit: int | None) -> None:
    """Whether other limits help, and the length that vLLM itself says would fit."""
    log = VllmLog(max_num_batched_tokens=2048)
    log.enter(phase)
    failed = VLLM.failed_start(VLLM.explain([line], 1), log)
    assert (failed.stage, failed.cause, failed.limit) == (stage, cause, limit)
    assert failed.facts is not None
    assert failed.facts.prefill_tokens == 2048
