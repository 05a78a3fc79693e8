"""Columns of many requests: chosen in pieces, and worked on in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from harness.measure.records import Records, by_pieces
from tests.runs import ticking


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5])
def test_requests_are_chosen_alike_in_pieces_and_one_by_one(share: float) -> None:
    """A few long stretches are copied as such, many short ones by their events; each keeps its own in any order."""
    random = np.random.default_rng(1)
    some = [ticking(number, float(number), tokens=int(random.integers(0, 5))) for number in range(400)]
    records, mask = Records.from_list(some), np.cumsum(random.random(400) < share) % 2 == 0
    assert records.select(mask).to_list() == [each for each, kept in zip(some, mask, strict=True) if kept]
    rows = np.concatenate([np.arange(300, 400), np.arange(50)])
    assert records.select(rows).to_list() == [some[row] for row in rows]


def test_a_column_by_pieces_is_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last piece is shorter, and of none."""
    monkeypatch.setattr("harness.measure.records.PIECE", 7)
    values = np.arange(23.0)
    assert by_pieces(values, lambda part: part * 2, int).tolist() == [2 * each for each in range(23)]
    assert len(by_pieces(values[:0], lambda part: part, int)) == 0
