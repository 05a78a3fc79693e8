"""The capacity card against sums that can be done by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.card import Card, Cell, measured, meets, sentence
from harness.probe.setting import ProbeGoal, Setting


def card(budget: int = 30_000, block: int = 1, answer: int = 128, **fields: int) -> Card:
    started = EngineFacts("flash", True, budget, block, budget // block, 4096, speculate=fields.pop("speculate", 0))
    total = fields.pop("total", budget)
    return Card(
        started, Setting(fields.pop("input", total - answer), total, 4096, None, fields.pop("permits", 64)), answer
    )


def test_forty_six_chats_of_639_slots_fit_into_30000() -> None:
    """512 tokens and 128 to answer take 639 slots: 46 of them run at once in 29,999."""
    assert card().chats_fit(512) == 46


def test_one_block_is_never_handed_out() -> None:
    """With two blocks of 256, a chat of 300 + 100 needs two, and one is there."""
    assert card(512, 256, answer=100, total=512).chats_fit(300) == 0
    assert card(512, 256, answer=100, total=512).chats_fit(150) == 1


def test_speculation_is_reserved_too() -> None:
    """Two speculated tokens widen every reservation by two slots."""
    assert card(641 * 10 + 1, answer=128).chats_fit(513) == 10
    assert card(641 * 10 + 1, answer=128, speculate=2).chats_fit(513) == 9


def test_long_answers_need_whole_pieces() -> None:
    """1,500 tokens are generated as 1,024 + 1,024, and the grown prompt must be within the input limit again."""
    long = card(answer=1500, total=8192, input=7168)
    assert long.longest_history() == 8192 - 2048
    assert long.chats_fit(1000) == 29_999 // (1000 + 2048 - 1)


def test_the_largest_history_is_served_by_the_allocator() -> None:
    """Not total - 1, which TGI defaults to, but what leaves the answer free and can be handed out."""
    assert card(30_000, answer=128, total=30_000).longest_history() == 30_000 - 128
    assert card(30_208, 256, answer=128, total=30_208).longest_history() == 29_952 + 1 - 128


def test_a_padded_engine_counts_by_its_budget() -> None:
    """No blocks and no free token: prompt and answer together."""
    started = EngineFacts("padded", budget=16_000)
    padded = Card(started, Setting(3584, 4096, 3584, 16_000, 20), 512)
    assert padded.chats_fit(3584) == 3
    assert padded.chats_fit(1000) == 10
    batch = Card(started, Setting(3584, 4096, 3584, 16_000, 20, max_batch_size=4), 512)
    assert (batch.chats_fit(3584), batch.chats_fit(1000)) == (3, 4), "no more run beside each other"


def test_no_more_chats_fit_than_a_batch_has() -> None:
    """Short ones too, where a long prompt would make the whole batch as long."""
    setting = Setting(4096, 4224, 4096, 5 * 4224, 128, max_batch_size=5)
    assert [Card(EngineFacts("padded"), setting, 128).chats_fit(history) for history in (100, 4096)] == [5, 5]


@pytest.mark.parametrize(
    ("history", "chats", "verdict"),
    [(512, 46, "fits"), (512, 47, "queues"), (512, 65, "refused"), (29_873, 1, "refused"), (29_872, 1, "fits")],
)
def test_what_becomes_of_chats(history: int, chats: int, verdict: str) -> None:
    """Fits at once, queues, or is refused: by permits or by length."""
    assert card().verdict(history, chats) == verdict


@given(st.integers(1, 29_000), st.integers(1, 200))
def test_more_chats_or_longer_ones_never_fit_better(history: int, chats: int) -> None:
    """The card falls with the history, and a verdict never improves with more chats."""
    order = ["fits", "queues", "refused"]
    assert card().chats_fit(history) >= card().chats_fit(history + 1)
    assert order.index(card().verdict(history, chats)) <= order.index(card().verdict(history, chats + 1))


def test_cells_take_what_was_measured() -> None:
    """A measured cell has its figures and a verdict; the others have none."""
    cells = measured([Cell(500, 128, 46), Cell(2000, 128, 14)], [(500, 0.4, 0.05)], ProbeGoal(itl=0.06, ttft=1.0))
    assert cells[0].meets_slo is True
    assert cells[1] == Cell(2000, 128, 14)


def test_an_slo_without_a_figure_is_neither_met_nor_missed() -> None:
    """A missing value is not a zero."""
    assert meets(None, 0.05, ProbeGoal(itl=0.06, ttft=1.0)) is None
    assert meets(2.0, 0.05, ProbeGoal(itl=0.06, ttft=1.0)) is False
    assert meets(2.0, 0.05, ProbeGoal()) is None


def test_the_sentence_names_the_longest_and_some_shorter() -> None:
    """What a newcomer asks first."""
    cells = [Cell(500, 1, 40), Cell(1000, 1, 25), Cell(2000, 1, 12), Cell(30_000, 1, 1)]
    assert sentence(cells) == "history up to 30,000 tokens for one chat; 25 chats at 1,000; 40 chats at 500"
    assert sentence(cells, 30) == "history up to 30,000 tokens for one chat; 25 chats at 1,000; 30 chats at 500"
    assert sentence(cells, 1) == "history up to 30,000 tokens for one chat"
