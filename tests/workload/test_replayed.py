"""A trace as a workload: rows at their moments, and what they hand on about conversations."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from harness.workload.traces.waits import Wait
from harness.workload.traces.window import Window
from harness.workload.vocabulary import assumed_vocabulary
from harness.workload.workload import replayed
from tests.workload.traces.samples import BAILIAN, BURSTGPT, WEKA


def write(folder: Path, text: str) -> Path:
    (folder / "trace").write_text(text)
    return folder / "trace"


def common(one: str, other: str) -> int:
    """Words that two prompts share from the beginning."""
    pairs = zip(one.split(" "), other.split(" "), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_a_later_turn_begins_with_the_blocks_of_the_turn_before(tmp_path: Path) -> None:
    """Bailian's second turns: 40 tokens in blocks of 16 are shared as far as their hashes say, 48 tokens."""
    workload = replayed(write(tmp_path, BAILIAN), seed=1, vocabulary=replace(assumed_vocabulary(), overhead=1))
    requests = [workload.request(number) for number in range(4)]
    assert [(each.session_id, each.turn) for each in requests] == [("11", 1), ("12", 1), ("11", 2), ("11", 3)]
    assert common(requests[0].prompt, requests[2].prompt) == 40 - 1
    assert common(requests[2].prompt, requests[3].prompt) == 64 - 1
    assert common(requests[0].prompt, requests[1].prompt) == 0
    assert [each.input_tokens for each in requests] == [40, 48, 64, 70]


def test_what_waits_for_what_is_handed_on(tmp_path: Path) -> None:
    """For whoever sends turns after one another: a sub-agent, its second turn, and who waits for it."""
    weka = replayed(write(tmp_path, WEKA), seed=1)
    assert weka.request(1).session_id == "trace_0026/a1"
    assert weka.waits == (Wait(), Wait((0,), 2.0), Wait((1,), 2.0), Wait((0, 2), 2.0))
    assert (weka.describe()["waiting_turns"], weka.describe()["recorded_pauses"]) == (3, 3)
    burst = replayed(write(tmp_path, BURSTGPT), seed=1)
    assert burst.waits[2] == Wait((0,), 39.5)
    assert burst.offsets == (0.0, 51.0, 82.5, 90.0)
    assert burst.describe()["sessions"] == 1


def test_pauses_go_at_the_pace_of_the_replay(tmp_path: Path) -> None:
    """Else a replay at 20 times the speed would wait as long as people did; sub-agents stay their own pass's."""
    fast = replayed(write(tmp_path, WEKA), Window(speed=4.0, loop=True, requests=8), seed=1)
    assert fast.waits[1:4] == (Wait((0,), 0.5), Wait((1,), 0.5), Wait((0, 2), 0.5))
    assert [fast.request(number).session_id for number in (4, 5)] == ["trace_0026#2", "trace_0026#2/a1"]
    assert fast.waits[4:6] == (Wait(), Wait((4,), 0.5))


def test_a_second_pass_asks_in_other_words(tmp_path: Path) -> None:
    """Or the engine's prefix cache would answer it; within a pass, what is shared is shared."""
    workload = replayed(write(tmp_path, BAILIAN), Window(loop=True, requests=8), seed=1)
    first, second = ([workload.request(number) for number in range(start, start + 4)] for start in (0, 4))
    assert common(first[0].prompt, second[0].prompt) < 2
    assert common(second[2].prompt, second[3].prompt) == 64
    assert [each.session_id for each in second] == ["11#2", "12#2", "11#2", "11#2"]
    assert [each.input_tokens for each in second] == [each.input_tokens for each in first]
