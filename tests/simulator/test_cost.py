"""The latency model: figures by hand, published readings, and the direction in which everything moves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.simulator.cost import CostModel, Host, cost_of, engine_host, kernel_of
from harness.simulator.memory import ServingPlan, coefficients, resolve
from harness.simulator.scheduler import StepShape
from harness.simulator.world import World

NO_HOST = Host(
    step=0.0, row=0.0, graph_layer=0.0, eager_layer=0.0, request=0.0, request_per_1000=0.0, graphs=(1, 2, 4, 8, 16, 32)
)


def model_of(name: str, gpu: str, host: Host = NO_HOST, **more: object) -> CostModel:
    return CostModel(shapes()[name], find_gpu(gpu), host, **more)  # type: ignore[arg-type]


def decode(rows: int, context: int) -> StepShape:
    return StepShape((), rows, rows * context)


def prefill(tokens: int, cached: int = 0, count: int = 1) -> StepShape:
    return StepShape(((tokens, cached),) * count, 0, 0)


def test_a_decode_step_is_the_weights_over_the_bandwidth() -> None:
    """Llama 3.1 8B on an L4: the layers and the head, 15.01 GB less the embedding, at 85 % of 300 GB/s."""
    read = 2 * (8_030_261_248 - 128_256 * 4096 - 65 * 4096)
    split = model_of("Llama-3.1-8B", "L4").split(decode(1, 1))
    assert split.memory == pytest.approx(read / (300e9 * 0.85), rel=1e-3)
    assert split.total == pytest.approx(split.memory, rel=0.01)


def test_keys_and_values_are_read_at_the_bandwidth() -> None:
    """32 rows of 4000 tokens of 131072 bytes: 16.8 GB beside the weights."""
    model = model_of("Llama-3.1-8B", "L4")
    more = model.split(decode(32, 4000)).memory - model.split(decode(32, 0)).memory
    assert more == pytest.approx(32 * 4000 * 131_072 / (300e9 * 0.85), rel=1e-6)


def test_prefill_is_two_flops_per_weight_and_token_and_its_attention() -> None:
    """2048 tokens of Llama 2 7B on an A100: 26.5 TFLOP in the layers, 1.1 in attention."""
    efficiency = coefficients()["cost"]["compute_efficiency"]["8.0"]
    attention = coefficients()["cost"]["attention_efficiency"]["default"]
    layers = 2 * 32 * (4 * 4096**2 + 3 * 4096 * 11008) * 2048 + 2 * 32000 * 4096
    pairs = 4 * 32 * 4096 * 2048**2 / 2
    expected = layers / (312e12 * efficiency) + pairs / (312e12 * attention)
    assert model_of("Llama-2-7B", "A100").split(prefill(2048)).compute == pytest.approx(expected, rel=1e-6)


def test_chunks_of_a_prompt_attend_to_what_came_before() -> None:
    """Two halves have the pairs of the whole: the second one attends to the first."""
    model = model_of("Llama-2-7B", "A100")
    halves = model.split(prefill(1024)).compute + model.split(prefill(1024, 1024)).compute
    head = 2 * 32000 * 4096 / (312e12 * coefficients()["cost"]["compute_efficiency"]["8.0"])
    assert halves - head == pytest.approx(model.split(prefill(2048)).compute, rel=1e-6)


def test_only_the_experts_that_are_hit_are_read() -> None:
    """Mixtral: two of eight for one token, all of them for many."""
    model = model_of("Mixtral-8x7B", "A100")
    one, many = model.split(decode(1, 1)).memory, model.split(decode(32, 1)).memory
    rate = 2039e9 * 0.8
    experts = 32 * 8 * 3 * 4096 * 14336 * 2
    assert many - one == pytest.approx(experts * 0.75 / rate, rel=0.01)


def test_a_window_bounds_what_a_row_attends_to() -> None:
    """Mistral 0.1 reads 4096 tokens of a context of 20000, 0.2 all of them."""
    windowed = model_of("Mistral-7B-v0.1", "A100").split(decode(8, 20_000)).memory
    bounded = model_of("Mistral-7B-v0.2", "A100").split(decode(8, 4096)).memory
    assert windowed == pytest.approx(bounded, rel=1e-6)
    assert windowed < model_of("Mistral-7B-v0.2", "A100").split(decode(8, 20_000)).memory


def test_a_batch_is_padded_to_the_next_graph_and_eager_above_the_largest() -> None:
    """17 rows cost what 32 cost to launch; at 33 the CPU launches every kernel."""
    host = replace(NO_HOST, graph_layer=10e-6, eager_layer=500e-6)
    model = model_of("Qwen2.5-0.5B", "H100", host)
    assert model.split(decode(17, 0)).compute > model.split(decode(16, 0)).compute * 1.8
    assert model.split(decode(32, 100)).launch == pytest.approx(24 * 10e-6)
    assert model.split(decode(33, 100)).launch == pytest.approx(24 * 500e-6)
    assert model.split(decode(33, 100)).total == pytest.approx(24 * 500e-6)


def test_any_forward_with_a_prompt_is_eager() -> None:
    """A mixed forward launches its kernels one by one, whatever the batch."""
    host = replace(NO_HOST, graph_layer=10e-6, eager_layer=500e-6)
    assert model_of("Qwen2.5-0.5B", "H100", host).split(StepShape(((1, 0),), 3, 30)).launch == pytest.approx(0.012)


def test_shards_divide_the_work_and_add_all_reduces() -> None:
    """Two per layer: bytes over the link, and a latency that grows with the ring."""
    one, four = model_of("Llama-3.1-70B", "H100"), model_of("Llama-3.1-70B", "H100", shards=4)
    assert four.split(decode(1, 100)).memory == pytest.approx(one.split(decode(1, 100)).memory / 4, rel=1e-6)
    assert one.split(decode(1, 100)).communication == 0
    sheet = coefficients()["cost"]
    hops = 2 * 80 * 6 * sheet["link_hop_us"]["nvlink"] * 1e-6
    size = 2 * 80 * 1.5 * 8192 * 2 / (450e9 * sheet["link_efficiency"]["nvlink"])
    assert four.split(decode(1, 100)).communication == pytest.approx(hops + size, rel=1e-6)
    pcie = model_of("Llama-3.1-8B", "L4", shards=2).split(prefill(4096)).communication
    assert pcie > 5 * model_of("Llama-3.1-8B", "H100", shards=2).split(prefill(4096)).communication


def test_four_bits_help_decode_more_than_prefill() -> None:
    """Fewer bytes to read, the same arithmetic after dequantising."""
    full, packed = model_of("Llama-3.1-8B", "L4"), model_of("Llama-3.1-8B", "L4", quantize="awq")
    assert packed.split(decode(1, 100)).total < 0.65 * full.split(decode(1, 100)).total
    assert packed.split(prefill(4096)).total > full.split(prefill(4096)).total


def test_fp8_computes_in_fp8_where_the_card_can() -> None:
    """On an H100 a prefill is nearly twice as fast; on an A100 it is not."""
    h100 = model_of("Llama-3.1-8B", "H100"), model_of("Llama-3.1-8B", "H100", quantize="fp8")
    assert h100[1].split(prefill(8192)).compute < 0.65 * h100[0].split(prefill(8192)).compute
    a100 = model_of("Llama-3.1-8B", "A100"), model_of("Llama-3.1-8B", "A100", quantize="fp8")
    assert a100[1].split(prefill(8192)).compute == pytest.approx(a100[0].split(prefill(8192)).compute)


def test_old_sharded_gptq_has_a_kernel_of_its_own() -> None:
    """Only before 2.0 and only when sharded."""
    assert kernel_of((1, 0, 3), "gptq", 4) == "gptq-triton"
    assert kernel_of((1, 0, 3), "gptq", 1) == "gptq"
    assert kernel_of((3, 3, 7), "gptq", 4) == "gptq"
    slow, fast = (model_of("Llama-2-13B", "A10G", quantize=each, shards=4) for each in ("gptq-triton", "gptq"))
    assert slow.split(decode(16, 100)).total > 2 * fast.split(decode(16, 100)).total


@pytest.mark.parametrize(
    ("world", "part"),
    [
        (World(compute_factor=0.5), "compute"),
        (World(bandwidth_factor=0.5), "memory"),
        (World(link_factor=0.5), "communication"),
        (World(launch_factor=2.0), "launch"),
    ],
)
def test_a_slower_world_is_slower_where_it_says(world: World, part: str) -> None:
    """Speed factors act on their own part and lengthen the whole."""
    served = resolve(ServingPlan(shapes()["Llama-3.1-8B"], find_gpu("A10G"), shards=2))
    step = StepShape(((700, 0),), 20, 20_000)
    plain, slow = cost_of(served).split(step), cost_of(served, world).split(step)
    assert getattr(slow, part) > 1.3 * getattr(plain, part)
    assert slow.total >= plain.total


def test_jitter_has_the_spread_that_was_asked_for() -> None:
    """Mean one, standard deviation as set; none by default."""
    served = resolve(ServingPlan(shapes()["Qwen2.5-0.5B"], find_gpu("L4")))
    plain = cost_of(served).seconds(decode(1, 100))
    noisy = cost_of(served, World(jitter=0.05, seed=1))
    times = [noisy.seconds(decode(1, 100)) / plain for _ in range(4000)]
    mean = sum(times) / len(times)
    spread = (sum((each - mean) ** 2 for each in times) / len(times)) ** 0.5
    assert mean == pytest.approx(1.0, abs=0.01)
    assert spread == pytest.approx(0.05, rel=0.1)


def test_graphs_that_were_not_captured_are_not_used() -> None:
    """Every step is then launched kernel by kernel, as on padded models."""
    served = resolve(ServingPlan(shapes()["Qwen2.5-0.5B"], find_gpu("H100")))
    captured, eager = cost_of(served), cost_of(served, graphs_captured=False)
    assert eager.seconds(decode(1, 100)) > 2 * captured.seconds(decode(1, 100))
    padded = cost_of(resolve(ServingPlan(shapes()["bloom-560m"], find_gpu("H100"))))
    assert padded.host.graphs == ()


def test_router_and_tokenizer_take_longer_for_longer_prompts() -> None:
    """And longer in a world that says so."""
    served = resolve(ServingPlan(shapes()["Qwen2.5-0.5B"], find_gpu("L4")))
    assert cost_of(served).request_seconds(8000) > cost_of(served).request_seconds(10)
    assert cost_of(served, World(router_factor=3.0)).request_seconds(10) == pytest.approx(
        3 * cost_of(served).request_seconds(10)
    )


# Steps of TGI 1.0.1 on an A10G with Llama 2 7B, in ms: a published table of its authors' benchmark.
DECODE_7B = {1: 30.42, 2: 30.60, 4: 30.95, 8: 31.58, 16: 33.12, 32: 37.99}


@pytest.mark.parametrize("batch", DECODE_7B)
def test_published_decode_steps_are_met_within_5_percent(batch: int) -> None:
    """From batch 1 to 32."""
    served = resolve(ServingPlan(shapes()["Llama-2-7B"], find_gpu("A10G"), version="1.0.1"))
    assert cost_of(served).seconds(decode(batch, 14)) * 1000 == pytest.approx(DECODE_7B[batch], rel=0.05)


@settings(max_examples=100, deadline=None)
@given(
    model=st.sampled_from(list(shapes())),
    gpu=st.sampled_from(["T4", "L4", "A100", "H100", "MI300X"]),
    rows=st.integers(0, 300),
    context=st.integers(1, 20_000),
    prompts=st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 4000)), max_size=4),
)
def test_more_work_never_takes_less_time(
    model: str, gpu: str, rows: int, context: int, prompts: list[tuple[int, int]]
) -> None:
    """One more token in the context, one more prompt, one more token of a prompt.

    Only a prompt that ends the use of a padded CUDA graph may save time.
    """
    host = engine_host("tgi", (1, 2, 4, 8, 16, 32))
    cost = CostModel(shapes()[model], find_gpu(gpu), host)
    if not rows and not prompts:
        return
    time = cost.seconds(StepShape(tuple(prompts), rows, rows * context))
    assert time > 0
    assert cost.seconds(StepShape(tuple(prompts), rows, rows * (context + 1))) >= time
    if prompts:
        assert cost.seconds(StepShape((*prompts, (10, 0)), rows, rows * context)) >= time
        longer = (prompts[0][0] + 1, prompts[0][1])
        assert cost.seconds(StepShape((longer, *prompts[1:]), rows, rows * context)) >= time
