"""How many tokens events hold, where that is told with each, of the whole answer only, or never."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.stats.tokens import event_tokens, filled, stamped, tokens_per_event
from tests.runs import failed, ticking


def answer(counts: list[int], total: int | None, told: str | None, share: float | None = None) -> RequestRecord:
    at = [1.0 + 0.1 * each for each in range(len(counts))]
    return ticking(
        0, 0.0, token_at=at, token_count=counts, output_tokens=total, count_told=told, first_share=share,
        asked_output_tokens=total or 9, finished_at=5.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (answer([3, 1, 2], 6, "per_event"), [3, 1, 2]),
        (answer([3, 1, 2], 9, "per_event"), [3, 1, 2]),  # what was told of each event is not touched
        (answer([3, 1, 2], None, "per_event"), [3, 1, 2]),
        (answer([1, 1, 1, 1], 4, "per_answer"), [1, 1, 1, 1]),
        (answer([1, 1, 1, 1], 16, "per_answer"), [4, 4, 4, 4]),
        (answer([1, 1, 1, 1], 13, "per_answer", 1 / 13), [1, 4, 4, 4]),  # the first event has one word of thirteen
        (answer([1, 1, 1], 13, "per_answer", 0.001), [1, 6, 6]),  # an event with text holds one at least
        (answer([1, 1, 1], 5, "per_answer", 0.99), [3, 1, 1]),  # and so do all others
        (answer([501, 1, 1], 509, "per_answer", 1 / 9), [501, 4, 4]),  # 500 of them before the first text, as told
        (answer([1, 1, 1, 1], 2, "per_answer"), [0.5] * 4),  # more events than tokens
        (answer([1], 32, "per_answer", 1.0), [32]),
        (answer([1, 1], None, None), [np.nan, np.nan]),
        (answer([1, 1, 1, 1], 8, None), [2, 2, 2, 2]),  # of an earlier version, which did not say how it was told
    ],
)
def test_tokens_of_each_event(record: RequestRecord, expected: list[float]) -> None:
    """As told with each; else the answer's count, divided; else nothing is known."""
    assert event_tokens(Records.from_list([record])) == pytest.approx(expected, nan_ok=True)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(0, 60),
            st.sampled_from(["per_event", "per_answer", None]),
            st.one_of(st.none(), st.floats(0, 1)),
        ),
        max_size=8,
    )
)
def test_a_count_that_is_divided_adds_up_to_itself(answers: list[tuple[int, int, str | None, float | None]]) -> None:
    """Whatever the shares, no event has less than nothing and all of them together have what was told."""
    records = Records.from_list([answer([1] * n, total, told, share) for n, total, told, share in answers])
    tokens = event_tokens(records)
    assert np.all(tokens[~np.isnan(tokens)] >= 0)
    for row, (n, total, told, _) in enumerate(answers):
        own = tokens[records.offsets[row] : records.offsets[row + 1]]
        assert own.sum() == pytest.approx(n if told == "per_event" else total if n else 0)


def test_answers_that_never_told_count_like_the_others() -> None:
    """A stream that broke held as many tokens an event as the rest; where none told, nothing is made up."""
    told, broken = answer([1, 1], 8, "per_answer"), answer([1, 1, 1], None, None)
    assert filled(Records.from_list([told, broken])).tolist() == [4, 4, 4, 4, 4]
    assert np.isnan(filled(Records.from_list([broken]))).all()
    assert tokens_per_event(Records.from_list([told, broken])) == 4
    assert np.isnan(tokens_per_event(Records.from_list([broken])))


def test_tokens_that_nobody_saw_are_generated_at_the_end_of_their_answer() -> None:
    """They have no event; those of a failed request are not known."""
    unseen = ticking(0, 0.0, token_at=[], token_count=[], output_tokens=12, finished_at=3.5)
    moments, tokens = stamped(Records.from_list([unseen, ticking(1, 10.0, tokens=2), failed(2, 0.0)]))
    assert moments.tolist() == pytest.approx([10.2, 10.22, 3.5])
    assert tokens.tolist() == [1.0, 1.0, 12.0]
