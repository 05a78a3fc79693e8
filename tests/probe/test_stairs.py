"""A load that climbs tells each of its sizes as sharply as a load of that size alone would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.setting import Load, Setting
from harness.probe.stairs import climb
from tests.probe.model_engine import ModelEngine

OPEN = 1_000_000


def sent(engine: ModelEngine, load: Load, longest: int, total: int) -> tuple[str, tuple[int, ...]]:
    """What the engine made of it: verdict, and the tokens in flight at each step that it survived."""
    setting = Setting(longest, total, longest, OPEN, 1024)
    facts = EngineFacts("padded", False, OPEN, 1, None, longest, longest, total)
    result = engine.send(load, setting, facts)
    return result.verdict, result.reads


@given(
    longest=st.integers(500, 5000),
    share=st.floats(1.1, 12.0),
    step=st.integers(10, 100),
    parts=st.sampled_from([(), (2,), (2, 3, 5, 8), (3, 2)]),
    always=st.integers(1, 2),
)
def test_each_step_has_the_size_that_it_says(
    longest: int, share: float, step: int, parts: tuple[int, ...], always: int
) -> None:
    """What is reserved rises to the sizes asked for; what is written is a few tokens of each chat below, at the last
    step next to nothing; nothing exceeds the limits.
    """
    sizes = [int(share * longest) + 60 + index * step for index in range(6)]
    total = longest + 128
    lengths = [longest, *(longest // count for count in parts)]
    always = min(always, len(lengths))
    load = climb(sizes, lengths, prefill=longest, longest=longest, total=total, always=always)
    assert load.longest <= longest
    assert all(shape.total <= total for shape in load.shapes)
    verdict, reads = sent(ModelEngine(10**7, "padded"), load, longest, total)
    assert verdict == "held"
    assert len(reads) == len(load.stairs) == 6 * always + len(lengths) - always
    rounds = len(reads) + 6
    for (end, size, rows), read in zip(load.stairs, reads, strict=True):
        assert size - rows * (rounds + 3) <= read <= size, end
        assert rows <= load.stays + 1 + max(1, *parts, 1)
    assert load.size <= sizes[-1] + 2 * max(1, *parts, 1), "two answer tokens of each prompt on top"
    first_of_last = reads[5 * always]
    assert load.stairs[5 * always][1] - first_of_last <= (load.stays + 2) * (len(lengths) + 3)


def test_a_death_is_between_two_steps() -> None:
    """The engine of known memory dies where it must: what held is below the truth, what died above it, a step apart."""
    engine = ModelEngine(20_000, "padded")
    true = 20_000 - 0.2 * 4000
    sizes = [18_900 + 100 * index for index in range(6)]
    load = climb(sizes, [4000], prefill=4000, longest=4000, total=4128)
    verdict, reads = sent(engine, load, 4000, 4128)
    assert verdict == "died"
    assert reads[-1] <= true < load.stairs[len(reads)][1]
    assert load.stairs[len(reads)][1] - reads[-1] <= 100 + 12 * (load.stays + 2)


def test_too_many_chats_are_not_sent() -> None:
    """Where so many beside each other were seen to kill, neither the chats that stay nor several prompts exceed it."""
    sizes = [20_000, 20_100]
    whole = climb(sizes, [1000, 500, 125], prefill=1000, longest=1000, total=1128)
    rows = max(rows for *_, rows in whole.stairs)
    fewer = climb(sizes, [1000, 500, 125], prefill=1000, longest=1000, total=1128, most=rows - 1)
    assert max(rows for *_, rows in fewer.stairs) < rows
    assert not climb(sizes, [1000], prefill=1000, longest=1000, total=1128, most=10).shapes
