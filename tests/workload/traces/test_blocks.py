"""The size of a block: by the form where the lengths agree, by the lengths alone, or asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.workload.traces.blocks import agree, find_blocks
from harness.workload.traces.container import Head
from harness.workload.traces.row import Record
from harness.workload.traces.tally import Tally


def head(*rows: tuple[int, int]) -> Head:
    """Rows of so many tokens with so many hashes."""
    records = (
        Record({"n": tokens, "ids": list(range(hashes))}, line, "t") for line, (tokens, hashes) in enumerate(rows)
    )
    return Head("jsonl", tuple(records), "t")


def size(*rows: tuple[int, int], **told: Any) -> int:
    return find_blocks(head(*rows), "ids", "n", **{"given": None, **told}).tokens


@given(st.integers(4, 10).map(lambda power: 2**power), st.lists(st.integers(3000, 9000), min_size=30), st.booleans())
def test_lengths_tell_the_size_by_themselves(block: int, lengths: list[int], full_only: bool) -> None:
    """A hash for each block, or for each full one only."""
    rows = [(length, length // block if full_only else -(-length // block)) for length in lengths]
    try:
        found = str(size(*rows))
    except UsageError as error:  # few lengths may leave several sizes; the true one is among those that are named
        found = error.found
    assert str(block) in found


def test_the_form_decides_where_the_lengths_agree() -> None:
    """And not where they contradict it."""
    assert size((1100, 3), size=512, form="F") == 512
    assert size((40, 3), (64, 4), size=512, form="F") == 16
    assert agree(head((40, 3)), "ids", "n", 512) is False
    assert agree(head((0, 0)), "ids", "n", 512) is None


def test_what_nothing_tells_is_asked_for() -> None:
    """With the sizes that are left."""
    with pytest.raises(
        UsageError, match=r"3 block hashes for 100 tokens: .* no size that fits all rows\. Give --trace-block"
    ):
        size((100, 3), (101, 90))
    with pytest.raises(UsageError, match="F has 16; the lengths leave blocks of 32 or 64 or 128 or 256 tokens"):
        size((17, 1), (32, 1), (31, 1), (20, 1), size=16, form="F")
    assert size((100, 3), (101, 90), given=7) == 7


def test_hashes_beyond_the_prompt_are_cut_and_counted() -> None:
    """A row keeps the blocks that its length holds."""
    tally = Tally()
    blocks = find_blocks(head((100, 7)), "ids", "n", given=64)
    assert blocks.read(Record({"ids": [1, 2, 3]}, 1, "t"), 100, tally) == (1, 2)
    assert blocks.read(Record({"ids": [1, 2]}, 1, "t"), 100, tally) == (1, 2)
    assert tally.of("altered") == 1
