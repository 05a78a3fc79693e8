"""What was in flight, counted from outside: never more than an engine held at once, however late its client reads."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drive.in_flight import at_steps, beside, carried, running_at_death
from harness.drive.judging import judge
from harness.load.burst import Burst, BurstAnswer
from harness.probe.setting import Load
from harness.workload.request import Request
from tests.probe.engines.law import Row


@dataclass
class Told:
    """An engine that reads one prompt in a step and gives all that run a token; most: tokens and chats that it held."""

    rows: list[Row]
    sent: list[list[int]] = field(default_factory=list)  # which chats got a token, forward by forward
    tokens: int = 0
    chats: int = 0

    def run(self) -> Told:
        waiting, running = list(self.rows), []
        while waiting or running:
            if waiting:
                row = waiting.pop(0)
                self._forward([*running, row], [row])
                running.append(row)
            running = [row for row in running if row.done < row.new]
            self._forward(running, running)
            running = [row for row in running if row.done < row.new]
        return self

    def _forward(self, held: list[Row], given: list[Row]) -> None:
        self.tokens = max(self.tokens, sum(row.input + row.done for row in held))
        self.chats = max(self.chats, len(held))
        for row in given:
            row.done += 1
        self.sent.append([at for at, row in enumerate(self.rows) if any(row is each for each in given)])


def read(engine: Told, turns: list[int], seed: int) -> list[BurstAnswer]:
    """What a client sees that reads so many of the engine's forwards in each of its turns."""
    answers = [
        BurstAnswer(Request("x", row.input, row.new, seed=at), 0, sent_at=0.0) for at, row in enumerate(engine.rows)
    ]
    forwards, moment = list(engine.sent), 0.0
    for count in [*turns, len(forwards)]:
        moment += 1.0
        for at in (chat for forward in forwards[:count] for chat in forward):
            answers[at].token_at.append(moment)
        forwards = forwards[count:]
    random.Random(seed).shuffle(answers)
    return [each for each in answers if each.begun]


chats = st.lists(st.builds(lambda size, new: Row(size, new), st.integers(1, 500), st.integers(1, 9)), min_size=1)


@given(chats, st.lists(st.integers(1, 5), max_size=60), st.integers(0, 9), st.booleans())
def test_a_late_client_never_counts_more_than_was_there(
    rows: list[Row], turns: list[int], seed: int, to_end: bool
) -> None:
    """Whatever a client reads in one turn, chats that had ended before do not count beside what came after."""
    engine = Told([Row(row.input, row.new) for row in rows]).run()
    answers = read(engine, turns, seed)
    assert 0 < (carried(answers, to_end=to_end) or 0) <= engine.tokens
    assert (beside(answers) or 0) <= engine.chats


@given(chats, st.lists(st.integers(1, 5), max_size=60))
def test_what_was_there_at_a_step_is_never_counted_too_high(rows: list[Row], turns: list[int]) -> None:
    """In the order of the requests, whatever a client reads in one turn; it ends with the first that got no token."""
    engine = Told([Row(row.input, row.new) for row in rows]).run()
    in_order = sorted(read(engine, turns, 0), key=lambda each: each.request.seed or 0)
    found = at_steps(in_order, range(1, len(rows) + 1))
    assert len(found) == len(rows)
    assert all(0 < counted <= engine.tokens for counted in found)
    silent = BurstAnswer(Request("x", 5, 5), 0, sent_at=0.0)
    assert at_steps([*in_order, silent], [len(rows), len(rows) + 1]) == found[-1:]


def test_prompts_of_one_step_may_be_read_in_any_order() -> None:
    """What counts is the moment at which both are there."""
    for one, other in (([1.0, 2.0, 4.0], [3.0, 5.0, 6.0]), ([3.0, 5.0, 6.0], [1.0, 2.0, 4.0])):
        pair = [BurstAnswer(Request("x", 500, 3), 0, 0.0, tokens, tokens[-1]) for tokens in (one, other)]
        assert at_steps(pair, [2]) == (500 + 2 + 500,)


@given(chats)
def test_a_prompt_client_counts_all(rows: list[Row]) -> None:
    """One that reads each forward by itself counts what was there at the fullest prompt, to the token."""
    engine = Told([Row(row.input, row.new + 1) for row in rows]).run()
    reads = []
    for at, forward in enumerate(engine.sent):
        done = [sum(index in each for each in engine.sent[:at]) for index in range(len(rows))]
        for new in forward:
            if done[new] == 0:
                running = [i for i, row in enumerate(engine.rows) if 0 < done[i] < row.new]
                reads.append(rows[new].input + sum(rows[i].input + done[i] for i in running))
    assert carried(read(engine, [1] * len(engine.sent), 0)) == max(reads)


def test_chats_that_ended_before_the_last_wave_are_not_beside_it() -> None:
    """Three chats ran together, and one was left when the prompt of the second wave was read, which ended at once."""
    ends = (2.0, 2.0, 9.0)
    first = [BurstAnswer(Request("x", 24, 64), 0, 0.0, [1.0, end], end) for end in ends]
    assert beside(first) == 3
    for tokens in ([5.0, 6.0], [5.0]):
        joined = BurstAnswer(Request("x", 900, 4), 1, 3.0, tokens)
        assert beside([*first, joined]) == 1 + (len(tokens) > 1)


@pytest.mark.parametrize(("asked", "told", "early"), [(9, 9, 0), (9, 3, 1), (9, None, 1), (2048, 1024, 0)])
def test_an_answer_that_the_model_ended_is_counted(asked: int, told: int | None, early: int) -> None:
    """By the engine's own count, else by its tokens; a chunk is whole, and so is what the client left."""
    ended = BurstAnswer(Request("x", 50, asked), 0, 0.0, [1.0, 2.0], 2.0, 200, output_tokens=told)
    left = BurstAnswer(Request("x", 50, 9), 0, 0.0, [1.0], left=True)
    assert judge(Load("write", ()), Burst((ended, left), "done", 3.0)).ended_early == early


def test_at_a_death_the_newest_token_was_not_yet_written() -> None:
    """Two chats with 3 and 1 tokens: the engine lived with 2 and 0 of them in its cache."""
    two = [BurstAnswer(Request("x", 100, 9), 0, 0.0, [1.0, 2.0, 3.0]), BurstAnswer(Request("x", 50, 9), 0, 0.0, [3.0])]
    assert running_at_death(two) == 152


def test_a_prompt_whose_answer_was_read_at_once_is_beside_those_that_ran_on() -> None:
    """A server that sends several tokens at a time, or a client that reads late; what began or ended in that turn may
    have done so before or after it.
    """

    def chat(*moments: float) -> BurstAnswer:
        return BurstAnswer(Request("x", 5, 5), 0, sent_at=0.0, token_at=list(moments))

    around, began, ended, at_once = chat(1, 2, 3), chat(2, 3), chat(1, 2), chat(2, 2)
    assert beside([around, around, at_once]) == 3
    assert beside([around, began, at_once]) == 2
    assert beside([around, ended, at_once]) == 2
    assert beside([at_once]) == 1


def test_a_prompt_that_ends_with_its_first_token_counts_beside_those_that_run() -> None:
    """But not where they began or ended in the same turn of the client, in which either may have been first."""
    running = BurstAnswer(Request("x", 24, 9), 0, 0.0, [1.0, 2.0, 4.0])
    assert beside([running, BurstAnswer(Request("x", 900, 1), 1, 1.5, [3.0])]) == 2
    assert beside([running, BurstAnswer(Request("x", 900, 1), 1, 1.5, [4.0])]) == 1
    assert beside([BurstAnswer(Request("x", 900, 1), 1, 1.5, [3.0])]) is None
