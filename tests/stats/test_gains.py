"""What a change would buy, by hand from levels whose law is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.report.capacity import capacity_document
from harness.report.to_markdown import to_markdown
from harness.stats.binding import Binding, Resource
from harness.stats.capacity_report import CapacityReport, HistoryCapacity
from harness.stats.capacity_search import CapacitySearch
from harness.stats.gains import gains, itl_line
from tests.report.subjects import capacity_report, searched, searched_history

FIXED, EACH = 0.020, 0.0005  # of a decode step, seconds


def known(
    resource: Resource, knee: float = 40.0, history: int | None = None, kv: float | None = 0.5
) -> HistoryCapacity:
    """A search with its estimate near `knee`, where ITL p95 is FIXED + EACH a chat, but for microseconds."""
    found = searched_history(history, knee)
    noise = np.random.default_rng(1).normal(0, 2e-6, len(found.figures))
    figures = tuple(
        replace(
            each,
            itl_p95=10.0 if outcome.saturated else FIXED + EACH * outcome.load + off,
            kv_used=kv,
            binds=Binding(resource, "so it is"),
        )
        for outcome, each, off in zip(found.search.told, found.figures, noise, strict=True)
    )
    return replace(found, figures=figures)


def report_of(*histories: HistoryCapacity) -> CapacityReport:
    return replace(capacity_report((2000, 40.0)), histories=histories)


def told(found: HistoryCapacity, report: CapacityReport | None = None, **flags: str) -> dict[str, tuple[float, ...]]:
    """Estimate and ends by the word that a change begins with."""
    return {
        gain.change.split(" ")[-1]: (gain.load, gain.low, gain.high or np.inf)
        for gain in gains(report or report_of(found), found, flags)
    }


def test_a_line_through_the_levels_is_the_law_that_made_them() -> None:
    """Without the level whose queue grew; and what is known of it is narrow where the points lie on it."""
    line = itl_line(known("decode"))
    assert line is not None
    assert (line.fixed, line.each) == (pytest.approx(FIXED, rel=0.01), pytest.approx(EACH, rel=0.01))
    load, low, high = line.crossing(0.06) or (0, 0, 0)
    assert low < 80.0 < high  # (60 - 20) / 0.5
    assert high - low < 2
    assert load == pytest.approx(80.0, rel=0.01)


def test_half_the_weights_halve_the_fixed_part_of_a_step() -> None:
    """(60 - 10) / 0.5 = 100 chats; not where the weights are small already."""
    found = told(known("decode"))
    assert found["bytes"][0] == pytest.approx(100.0, rel=0.02)
    assert set(told(known("decode"), quantize="awq")) == {"replica"}


def test_a_cache_of_twice_the_room_holds_twice_until_itl_binds() -> None:
    """Twice 39 chats are 78, and ITL allows 80; of twice 60 chats it allows 80."""
    found = known("kv memory")
    answer = found.answer
    assert answer.best is not None
    assert told(found)["cache"] == (2 * answer.best, 2 * answer.holds, 2 * (answer.breaks or 0))
    assert told(known("kv memory", 60.0))["cache"][0] == pytest.approx(80.0, rel=0.01)
    assert "cache" not in told(known("kv memory"), KV_CACHE_DTYPE="fp8_e4m3")


def test_a_higher_limit_fills_the_cache() -> None:
    """At 39 chats it was 60 % full: 95 / 60 times as many fit; nothing is said where it is not told, or is full."""
    found = known("queue limit", kv=0.6)
    assert found.answer.best is not None
    assert told(found)["once"][0] == pytest.approx(found.answer.best * 0.95 / 0.6)
    for kv in (None, 0.97):
        assert set(told(known("queue limit", kv=kv))) == {"replica"}


def test_a_shorter_history_gives_back_what_it_cost() -> None:
    """Between the two that were searched: 3,000 tokens less are worth half of what 6,000 cost."""
    short, long = known("kv memory", 40.0, 2000), known("kv memory", 20.0, 8000)
    report = report_of(short, long)
    best = [each.answer.best or 0.0 for each in (short, long)]
    expected = best[1] + 4 / 6 * (best[0] - best[1])
    assert told(long, report)["tokens"][0] == pytest.approx(expected)
    assert "tokens" not in told(short, report)  # shorter ones were not searched


@pytest.mark.parametrize("resource", ["client", None])
def test_where_the_service_is_not_what_limits_nothing_is_promised(resource: Resource | None) -> None:
    """A second replica behind a client that is late buys nothing."""
    assert told(known(resource)) == {}  # type: ignore[arg-type]


def test_too_few_levels_are_no_line() -> None:
    """Three loads leave a line next to nothing to be wrong by."""
    found = known("decode")
    few = replace(found, search=replace_told(found, 3), figures=found.figures[:3], flows=found.flows[:3])
    assert itl_line(few) is None
    assert "bytes" not in told(few)


def replace_told(found: HistoryCapacity, count: int) -> CapacitySearch:
    return CapacitySearch(found.search.goal, found.search.told[:count])


def test_the_page_names_estimates_as_such_and_says_how_to_measure() -> None:
    """Each with its interval; where no setting can be judged, with the command that would."""
    text = to_markdown(capacity_document(replace(searched(), report=report_of(known("kv memory")))))
    assert "Estimate, not measured: an fp8 KV cache, at most about 78 chats" in text
    assert "To measure: `harness ab qwen2.5-7b --b kv_cache_dtype=fp8 --users 39`" in text
    assert "KEY=VALUE" not in text
    plain = to_markdown(capacity_document(searched()))
    assert "these levels do not tell it. To measure: `harness ab qwen2.5-7b --b KEY=VALUE --users" in plain
