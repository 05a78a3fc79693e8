"""The memory model: budgets and failures of real starts, the sum with its parts, and what moves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.gpus import find_gpu, gpus
from harness.catalog.shapes import shapes
from harness.errors import UsageError
from harness.simulator.memory import (
    Budget,
    NotEnoughMemory,
    ServingPlan,
    budget,
    describe,
    forward_fits,
    largest_set_budget,
    loaded_weights,
    padded_batch_fits,
    resolve,
    warmup_requests,
)
from harness.simulator.version import parse_release, wiggle_room
from harness.simulator.world import World, world_from_mapping
from harness.units import GIB, MIB


def plan(model: str, gpu: str, **more: object) -> ServingPlan:
    return ServingPlan(shapes()[model], find_gpu(gpu), **more)  # type: ignore[arg-type]


def started(served: ServingPlan, world: World | None = None) -> Budget:
    outcome = budget(served, world)
    assert isinstance(outcome, Budget), outcome
    return outcome


def failed(served: ServingPlan, world: World | None = None) -> NotEnoughMemory:
    outcome = budget(served, world)
    assert isinstance(outcome, NotEnoughMemory), outcome
    return outcome


# Budgets that TGI logged: issues 1831, 832, 2842 and 653 of its repository, and a deployment guide of 2024.
LOGGED = [
    (
        "mistral on A100, 2.0.0",
        plan(
            "Mistral-7B-v0.1",
            "A100",
            version="2.0.0",
            max_input_tokens=8000,
            max_total_tokens=8512,
            max_batch_prefill_tokens=32768,
        ),
        425_472,
    ),
    (
        "llama 3.1 on A10G, 2.2",
        plan(
            "Llama-3.1-8B",
            "A10G",
            version="2.2.0",
            max_input_tokens=4095,
            max_total_tokens=4096,
            max_batch_prefill_tokens=4145,
        ),
        19_056,
    ),
    ("llama 2 70B on 4 A100, 1.0.0", plan("Llama-2-70B", "A100", version="1.0.0", shards=4), 406_560),
    (
        "llama 3.3 70B AWQ on 2 RTX 3090, 3.0.1",
        plan("Llama-3.1-70B", "RTX3090", version="3.0.1", shards=2, quantize="awq"),
        13_807,
    ),
    (
        "llama 2 7B on A10G, build of 2023-07-19",
        plan("Llama-2-7B", "A10G", version="main 2023-07-19", max_batch_prefill_tokens=4096),
        16_224,
    ),
]


@pytest.mark.parametrize(("served", "logged"), [row[1:] for row in LOGGED], ids=[row[0] for row in LOGGED])
def test_logged_budgets_are_met_within_3_percent_of_the_gpus_memory(served: ServingPlan, logged: int) -> None:
    """Over five releases, four cards, one to four shards, 16 and 4 bits."""
    found = started(served)
    assert abs(found.tokens - logged) * found.kv_bytes_per_token < 0.03 * found.total_bytes


def test_memory_in_use_after_a_start_is_what_nvidia_smi_showed() -> None:
    """19882 MiB for the A10G, 22227 MiB for each RTX 3090."""
    assert started(LOGGED[1][1]).used_bytes / MIB == pytest.approx(19_882, rel=0.02)
    assert started(LOGGED[3][1]).used_bytes / MIB == pytest.approx(22_227, rel=0.02)


def test_starts_that_failed_fail() -> None:
    """70B on four H100 with a prefill of 131122 tokens, 13B on two A10G in 0.9.3, 6.7B on a laptop's 8 GB."""
    long = plan(
        "Llama-3.1-70B",
        "H100",
        version="2.2.0",
        shards=4,
        max_input_tokens=131_072,
        max_total_tokens=139_264,
        max_batch_prefill_tokens=131_122,
    )
    assert failed(long).text == (
        "Not enough memory to handle 131122 prefill tokens. You need to decrease `--max-batch-prefill-tokens`"
    )
    assert started(replace(long, max_input_tokens=65_000, max_total_tokens=65_536, max_batch_prefill_tokens=65_050))
    old = plan(
        "Llama-2-13B",
        "A10G",
        version="0.9.3",
        shards=2,
        max_input_tokens=10_000,
        max_total_tokens=15_000,
        max_batch_prefill_tokens=10_000,
        max_batch_total_tokens=16_000,
    )
    assert failed(old).text.startswith("Not enough memory to handle 16000 total tokens with 10000 prefill tokens.")
    small = failed(plan("deepseek-coder-6.7B", "RTX4060-Laptop", version="2.4.1"))
    assert small.stage == "load"
    assert small.text.startswith("CUDA out of memory. Tried to allocate")


def test_the_sum_of_the_parts_is_the_gpus_memory() -> None:
    """Each byte of a start is accounted for, and described with its name."""
    for card in ("T4", "L4", "A100", "H100"):
        found = started(plan("Llama-3.2-3B", card))
        assert sum(part.bytes for part in found.parts) == found.total_bytes
        assert all(part.bytes >= 0 for part in found.parts)
        assert "KV cache" in describe(found)


def test_a_failure_says_how_much_is_missing() -> None:
    """With exactly that much more memory on the card the same stage passes."""
    served = plan("Llama-3.1-70B", "A100")
    missing = failed(served)
    assert missing.stage == "load"
    assert sum(part.bytes for part in missing.parts) - missing.total_bytes == missing.missing_bytes
    more = World(visible_bytes=missing.total_bytes + missing.missing_bytes)
    assert failed(served, more).stage == "warmup"
    assert "missing" in describe(missing)


def test_a_tied_head_is_loaded_a_second_time() -> None:
    """Qwen2.5 0.5B: 260 MiB more than its checkpoint, and one row more of the embedding."""
    shape = shapes()["Qwen2.5-0.5B"]
    loaded = loaded_weights(shape, None, None, 1)
    assert loaded.head == 151_936 * 896 * 2
    assert loaded.embedding == 151_937 * 896 * 2


def test_a_head_whose_rows_do_not_divide_stays_whole() -> None:
    """GPT-2's 50257 rows on two shards: the head is whole on both, the embedding is padded and split."""
    loaded = loaded_weights(shapes()["GPT-2"], None, None, 2)
    assert loaded.head == 50_257 * 768 * 2
    assert loaded.embedding == (25_129 + 1) * 768 * 2


def test_shards_must_divide_the_heads() -> None:
    """But a single KV head is replicated."""
    with pytest.raises(UsageError, match="28 attention heads do not divide by 3 shards"):
        budget(plan("Qwen2.5-7B", "L4", shards=3))
    assert started(plan("Gemma-3-1B", "L4", shards=2)).kv_bytes_per_token == 26_624


@pytest.mark.parametrize(
    ("limits", "requests"),
    [
        ((4096, None, None), [(4096, 1)]),
        ((4096, 1024, 2048), [(1024, 1024)] * 4),
        ((4145, 4095, 4096), [(4095, 1), (50, 4046)]),
        # The difference of two u32: seen on the real router.
        ((4096, None, 1000), [(4096, 4_294_964_200)]),
    ],
)
def test_the_warm_up_batch(limits: tuple[int, int | None, int | None], requests: list[tuple[int, int]]) -> None:
    """Prompts up to the prefill budget, each with the new tokens that are left of the total."""
    assert warmup_requests(*limits) == requests
    assert warmup_requests(*limits, max_batch_size=1) == requests[:1]


def test_warm_up_blocks_take_memory_before_anything_is_measured() -> None:
    """P 4096, input 1024, total 131072: four requests of 131071 slots, too many for an L4 that serves 8B."""
    served = plan("Llama-3.1-8B", "L4", max_batch_prefill_tokens=4096, max_input_tokens=1024, max_total_tokens=131_072)
    assert failed(served).stage == "warmup"
    assert failed(served).parts[-1].bytes == 4 * 131_071 * 131_072
    assert "num_tokens" in failed(served).text


def test_default_limits_follow_the_release() -> None:
    """3.x with chunking: what fits, at most the context. Without: the warm-up's tokens. 2.x and 1.x: fixed."""
    found = started(plan("Llama-3.1-8B", "L4"))
    assert (found.max_total_tokens, found.max_input_tokens) == (found.tokens, found.tokens - 1)
    assert started(plan("Qwen2.5-0.5B", "L4")).max_total_tokens == 32_768
    whole = started(plan("Qwen3-8B", "A100"))
    assert whole.max_total_tokens == whole.max_batch_prefill_tokens == whole.warmup_tokens
    two = resolve(plan("Llama-3.1-8B", "L4", version="2.0.0"))
    assert (two.max_input_tokens, two.max_total_tokens, two.max_batch_prefill_tokens) == (4095, 4096, 4145)
    one = resolve(plan("Llama-2-7B", "A100", version="1.4.0"))
    assert (one.max_input_tokens, one.max_total_tokens, one.max_batch_prefill_tokens) == (1024, 2048, 4096)


def test_block_sizes() -> None:
    """flashinfer 1, flashdecoding 256; paged 16 in old releases, on ROCm, and on Turing for odd head sizes."""
    assert resolve(plan("Llama-3.1-8B", "L4")).block_size == 1
    assert resolve(plan("Phi-3-mini-4k", "L4")).block_size == 256
    assert resolve(plan("Llama-3.2-1B", "T4")).block_size == 1
    for paged in (resolve(plan("Phi-3-mini-4k", "T4")), resolve(plan("Llama-3.1-8B", "MI300X"))):
        assert (paged.block_size, paged.prefix_cache, paged.chunking) == (16, False, False)
    assert resolve(plan("Llama-3.1-8B", "L4", version="2.2.0")).block_size == 16


def test_wiggle_room_by_release() -> None:
    """The reserve changed six times."""
    releases = ["1.4.0", "1.4.1", "2.3.1", "2.4.0", "3.0.1", "3.1.0", "3.2.3", "3.3.7"]
    rooms = [wiggle_room(parse_release(each)) for each in releases]
    assert rooms == [1.0, 0.95, 0.95, 0.90, 0.95, 0.93, 0.93, 0.90]


BASE = plan("Llama-3.1-8B", "A100", max_batch_prefill_tokens=8192)


@pytest.mark.parametrize(
    "change",
    [
        {"max_batch_prefill_tokens": 2048},
        {"kv_cache_dtype": "fp8_e4m3fn"},
        {"quantize": "awq"},
        {"shards": 2},
        {"wiggle_room": 0.97},
    ],
)
def test_what_frees_memory_raises_the_budget(change: dict[str, object]) -> None:
    """The knobs that a tuner can move."""
    assert started(replace(BASE, **change)).tokens > started(BASE).tokens  # type: ignore[arg-type]


def test_what_does_not_move_the_budget() -> None:
    """Fewer CUDA graphs free headroom only, since the budget is measured before; max_batch_total_tokens is ignored."""
    graphs = started(replace(BASE, cuda_graphs=()))
    assert graphs.tokens == started(BASE).tokens
    assert graphs.headroom_bytes > started(BASE).headroom_bytes
    assert started(replace(BASE, max_batch_total_tokens=9000)).tokens == started(BASE).tokens


def test_memory_fraction_scales_the_budget_and_caps_the_allocator() -> None:
    """Half the card is not enough for a model that needs more than that."""
    assert started(replace(BASE, cuda_memory_fraction=0.6)).tokens < started(BASE).tokens * 0.6
    assert failed(plan("Llama-3.1-8B", "L4", cuda_memory_fraction=0.5)).stage == "load"


@pytest.mark.parametrize(
    "world",
    [
        World(used_by_others=4 * GIB),
        World(visible_bytes=70 * GIB),
        World(context_bytes=3 * GIB),
        World(activation_bytes_per_token=800_000.0),
        World(extra_at_load_bytes=2 * GIB),
        World(fragmentation=0.2),
    ],
)
def test_a_harder_world_lowers_the_budget(world: World) -> None:
    """Every physical quantity can differ from the model's own, and the parts still sum up."""
    found = started(BASE, world)
    assert found.tokens < started(BASE).tokens
    assert sum(part.bytes for part in found.parts) == found.total_bytes


def test_a_world_is_read_from_a_scenario() -> None:
    """Unknown keys and words are refused with the place."""
    world = world_from_mapping({"used_by_others": 1e9, "bandwidth_factor": 0.8, "seed": 3})
    assert world == World(used_by_others=1_000_000_000, bandwidth_factor=0.8, seed=3)
    with pytest.raises(UsageError, match="unknown key 'vram'"):
        world_from_mapping({"vram": 3})
    with pytest.raises(UsageError, match="scenario/jitter"):
        world_from_mapping({"jitter": "much"})


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from([name for name, shape in shapes().items() if shape.heads % 2 == 0]),
    gpu=st.sampled_from(list(gpus())),
    prefill=st.sampled_from([512, 2048, 8192, None]),
)
def test_every_start_ends_in_a_budget_or_a_reason(model: str, gpu: str, prefill: int | None) -> None:
    """Whatever the model and card: the cache and the weights fit the card, or something is missing."""
    outcome = budget(plan(model, gpu, max_batch_prefill_tokens=prefill))
    if isinstance(outcome, NotEnoughMemory):
        assert outcome.missing_bytes > 0
        assert outcome.text
    else:
        assert outcome.used_bytes <= outcome.total_bytes
        assert outcome.tokens > 0
        assert outcome.usable_tokens <= outcome.tokens


def test_padded_models_have_the_budget_that_is_set() -> None:
    """Nothing is measured: the option counts, else 16000 or more, whatever the card."""
    assert started(plan("bloom-560m", "T4", max_batch_total_tokens=1_000_000)).tokens == 1_000_000
    assert started(plan("bloom-560m", "T4")).tokens == 16_000
    assert started(plan("bloom-560m", "H100", max_batch_total_tokens=500)).tokens == 500
    assert not started(plan("bloom-560m", "T4")).measured


def test_padded_batches_can_run_out_of_memory() -> None:
    """Whether a batch fits depends on its rows, its padded length and what else uses the card."""
    served = plan("opt-6.7b", "A10G")
    assert padded_batch_fits(served, World(), rows=4, length=512, new=100)
    assert not padded_batch_fits(served, World(), rows=64, length=512, new=512)
    assert not padded_batch_fits(served, World(used_by_others=8 * GIB), rows=4, length=512, new=100)


def test_a_forward_beside_the_full_cache() -> None:
    """The forward of the warm-up fits the reserve; one of twenty times its size does not."""
    served = plan("Llama-3.1-8B", "L4")
    found = started(served)
    assert forward_fits(served, World(), found, found.max_batch_prefill_tokens, 32)
    assert not forward_fits(served, World(), found, 20 * found.max_batch_prefill_tokens, 32)


def test_the_largest_budget_that_can_be_set_where_nobody_infers_it() -> None:
    """0.9.1 with LLaMA 7B on an A10: near the 17664 that a maintainer of TGI used; a token more does not start."""
    served = plan("LLaMA-7B", "A10", version="0.9.1", max_batch_prefill_tokens=2048)
    largest = largest_set_budget(served)
    assert largest == pytest.approx(17_664, rel=0.1)
    assert started(replace(served, max_batch_total_tokens=largest - 200))
    assert failed(replace(served, max_batch_total_tokens=largest + 200))
