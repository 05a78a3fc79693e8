"""Figures that cannot be had, and why."""

from __future__ import annotations

from typing import Any

import pytest

from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.stats.absence import CAUSES, as_asked, in_one_piece, lacks, main_cause
from harness.stats.metrics import BY_NAME
from tests.runs import closed_level, failed, manifest, ticking


def at(*moments: float, **changes: Any) -> RequestRecord:
    given = {"token_at": list(moments), "token_count": [1] * len(moments), **changes}
    return ticking(0, 0.0, tokens=len(moments), **given)


PLAIN = ticking(0, 0.0)
ONE_TOKEN = ticking(0, 0.0, tokens=1)
BURST = at(*[0.8] * 11)
RUSH = at(*[0.8 + 0.00003 * n for n in range(11)])
SINGLE = at(0.8, output_tokens=11, token_count=[11])
WHOLE = at(0.8, output_tokens=11, token_count=[11], notes="not_streamed:application/json")
UNTOLD = ticking(0, 0.0, output_tokens=None, count_told=None)
UNTOLD_SINGLE = at(0.8, output_tokens=None, count_told=None, asked_output_tokens=11)
UNSEEN = at(output_tokens=11, finished_at=1.0, notes="invisible")
LOST = ticking(0, 0.0, output_tokens=12)


@pytest.mark.parametrize(
    ("record", "causes"),
    [
        (PLAIN, {}),
        (ONE_TOKEN, {}),  # it has no gap, and nothing is missing
        (BURST, {"itl": "in one piece", "tpot": "in one piece"}),
        (RUSH, {"itl": "in one piece", "tpot": "in one piece"}),  # a buffer that is emptied event by event
        (SINGLE, {"itl": "in one piece", "tpot": "in one piece"}),
        (WHOLE, dict.fromkeys(("ttft", "service_ttft", "itl", "tpot"), "not streamed")),
        (UNTOLD, {"tpot": "not told"}),
        (UNTOLD_SINGLE, {"itl": "in one piece", "tpot": "in one piece"}),
        (UNSEEN, dict.fromkeys(("ttft", "service_ttft", "itl", "tpot"), "invisible")),
        (LOST, {"tpot": "miscounted"}),
        (failed(0, 0.0), {}),  # failed requests lack nothing: they failed
    ],
)
def test_why_a_request_lacks_a_figure(record: RequestRecord, causes: dict[str, str]) -> None:
    """The first cause that applies; the metric has no sample of such a request."""
    records = Records.from_list([record])
    for metric in ("ttft", "service_ttft", "itl", "tpot", "e2e"):
        main = main_cause(records, metric)
        assert (main[0].word if main else None) == causes.get(metric)
        assert lacks(records, metric).tolist() == [metric in causes]
        has = len(BY_NAME[metric].of(records).samples) > 0
        if metric in causes:
            assert not has
        elif record is PLAIN or metric in ("ttft", "service_ttft"):
            assert has or record.status != "completed"


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ([10.0, 10.02, 10.04, 10.06], False),  # a long prompt and a short answer
        ([0.01, 0.0103, 0.0106], False),  # a small model that is fast: 3,000 tokens a second
        ([10.0, 10.00021, 10.00042], False),  # 4,800 a second
        ([10.0, 10.00019, 10.00038], True),
        ([10.0, 10.00005, 12.0], False),  # what came together was not all
        ([0.001, 0.00105, 0.0011], False),  # as fast as its first token
    ],
)
def test_a_rush_is_told_from_a_fast_model(moments: list[float], expected: bool) -> None:
    """Less than 0.2 ms an event, and all of it within a hundredth of the wait."""
    assert in_one_piece(Records.from_list([at(*moments)])).tolist() == [expected]


def test_what_most_lack_is_named_with_the_share_that_lacks_anything() -> None:
    """Three of four, two of them for the same reason."""
    records = Records.from_list([PLAIN, UNTOLD, UNTOLD, BURST])
    main = main_cause(records, "tpot")
    assert main is not None
    assert (main[0].word, main[1]) == ("not told", 0.75)


def test_with_no_stream_every_answer_is_a_document() -> None:
    """Nothing is known of its first token; other notes stay."""
    records = Records.from_list([SINGLE, at(0.8, notes="cut_after_end")])
    whole = as_asked(records, manifest([closed_level(0, 1, 0.0, 9.0)], stream=False))
    assert whole.notes.tolist() == ["not_streamed", "cut_after_end,not_streamed"]
    assert BY_NAME["ttft"].of(whole).left_out == 2
    assert as_asked(records, manifest([])) is records


def test_every_cause_can_be_told_in_a_word_and_a_sentence() -> None:
    """And says what to do."""
    for causes in CAUSES.values():
        assert all(cause.word and cause.text and cause.advice.endswith(".") for cause in causes)
