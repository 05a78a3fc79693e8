"""What a workload says of the people behind it."""

from __future__ import annotations

import pytest

from harness.workload.chat import Chat
from harness.workload.drawn import drawn
from harness.workload.habits import HabitsTold, habits_told
from harness.workload.lengths import parse_lengths
from harness.workload.mix import Mix
from harness.workload.pauses import parse_pauses

BASE = drawn("talk", "20", "5", seed=1)
TALK = Chat(BASE, turns=parse_lengths("uniform:4:8"), think_time=parse_pauses("30s"))


def test_a_conversation_tells_its_turns_and_its_pauses() -> None:
    """On average; single requests tell neither."""
    told = habits_told(TALK.describe())
    assert told.turns == pytest.approx(6.0, abs=0.1)
    assert told.think == 30.0
    assert habits_told(BASE.describe()) == HabitsTold()


def test_several_classes_count_by_their_weights() -> None:
    """And say nothing where one of them does not."""
    short = Chat(BASE, turns=parse_lengths("2"), think_time=parse_pauses("10s"))
    told = habits_told(Mix((TALK, short), (1.0, 3.0)).describe())
    assert told.turns == pytest.approx(3.0, abs=0.1)
    assert told.think == pytest.approx(15.0)
    assert habits_told(Mix((TALK, BASE), (1.0, 1.0)).describe()) == HabitsTold()
