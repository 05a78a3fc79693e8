"""What binds at the limit is read at the levels beside it, and the report says at which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.report.capacity.subject import SearchReport
from harness.report.capacity.what_binds import section
from harness.report.document import Bullets
from harness.stats.binding import Binding, Resource
from harness.stats.capacity_report import HistoryCapacity
from harness.stats.capacity_search import Answer, CapacitySearch
from tests.report.subjects import searched, searched_history

LOADS = (20, 36, 39, 41, 44, 60)


class Decided(CapacitySearch):
    """Whose answer is known."""

    def answer(self) -> Answer:
        return Answer(38.0, 42.0, 39.0, "ttft_p95", True)


def told(by_load: dict[int, Resource]) -> HistoryCapacity:
    """The other levels do not tell."""
    plain = searched_history(None, 40.0)
    assert [each.load for each in plain.search.told] == list(LOADS)
    resources = [by_load.get(load) for load in LOADS]
    figures = tuple(
        replace(each, binds=Binding(found, f"{found} at {load}"))
        for each, found, load in zip(plain.figures, resources, LOADS, strict=True)
    )
    return replace(plain, search=Decided(plain.search.goal, plain.search.told), figures=figures)


@pytest.mark.parametrize(
    ("by_load", "lines"),
    [
        ({39: "prefill"}, ["At 39 chats prefill binds: prefill at 39."]),
        ({41: "queue limit"}, ["At 41 chats, above the limit, queue limit binds: queue limit at 41."]),
        ({36: "decode", 60: "kv memory"}, ["At 36 chats, below the limit, decode binds: decode at 36."]),
        ({39: "decode", 44: "decode"}, ["At 39 chats decode binds: decode at 39."]),
        (
            {36: "decode", 41: "kv memory"},
            [
                "At 41 chats, above the limit, kv memory binds: kv memory at 41.",
                "At 36 chats, below the limit, it is decode: decode at 36.",
            ],
        ),
        ({60: "kv memory"}, ["At 39 chats it is not known what binds: None at 39."]),
    ],
)
def test_the_nearest_level_that_tells_is_read(by_load: dict[int, Resource], lines: list[str]) -> None:
    """On either side of the limit; one far from it is not read as the limit's."""
    history = told(by_load)
    whole = searched()
    report = replace(whole.report, histories=(history,))
    found = section(SearchReport(report, report.as_dict(), None, "made-up"))
    assert found is not None
    bullets = found.blocks[0]
    assert isinstance(bullets, Bullets)
    said = [line for line in bullets.lines if line.startswith("At ")]  # the others estimate what a change buys
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True)), said


def test_a_service_at_a_url_is_not_compared_by_entry() -> None:
    """`harness ab` starts variants of an entry, and it has none; nor does a rate that came lie beside the limit by a
    thousandth.
    """
    history = told({39: "prefill"})
    levels = [replace(each, came=39.01 if each.load == 39 else None) for each in history.search.told]
    whole = searched()
    report = replace(whole.report, histories=(replace(history, search=Decided(history.search.goal, levels)),))
    document = {**report.as_dict(), "question": {"url": "http://127.0.0.1:1"}}
    found = section(SearchReport(report, document, None, "made-up"))
    assert found is not None
    bullets = found.blocks[0]
    assert isinstance(bullets, Bullets)
    words = " ".join(bullets.lines)
    assert "harness capacity --url http://127.0.0.1:1" in words
    assert "harness ab" not in words
    assert words.startswith("At 39 chats prefill binds")
