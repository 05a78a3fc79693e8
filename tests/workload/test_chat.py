"""Conversations as values: what is asked next, given the answers, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.workload.chat import Chat, Conversation
from harness.workload.history import HISTORIES, PastTurn, parse_history
from harness.workload.lengths import parse_lengths
from harness.workload.mix import Mix
from harness.workload.pauses import parse_pauses
from harness.workload.request import Player, Reply, Request
from harness.workload.workload import drawn, from_dict

WORDS = {"keep_all": "keep_all", "last": "last(2)", "tokens": "tokens(60)", "summary": "summary(30)"}


def chat(**changes: Any) -> Chat:
    plain = Chat(drawn("c", "uniform:5:30", "uniform:4:9", seed=3, salt="s"), turns=parse_lengths("6"))
    return replace(plain, **changes)


def echo(request: Request) -> Reply:
    """A model whose answers are told apart, with characters that are easily lost."""
    text = f" \n«{len(request.messages)}» é\u2028😀\ttail \r\n"
    return Reply(text, None, request.input_tokens, request.max_new_tokens, "length")


def play(
    workload: Chat | Mix, number: int, model: Callable[[Request], Reply] = echo, player: Player | None = None
) -> tuple[list[Request], str | None]:
    """All requests of a conversation, and how it ended."""
    script, sent = workload.start(number, player), []
    try:
        request = next(script)
        while True:
            sent.append(request)
            request = script.send(model(request))
    except StopIteration as end:
        return sent, end.value


def test_each_turn_is_sent_with_the_models_own_answers() -> None:
    """All that was said before, to the character, in order, behind the same system prompt."""
    sent, ended = play(chat(system_tokens=20), 7)
    assert ended == "completed"
    assert [request.turn for request in sent] == [1, 2, 3, 4, 5, 6]
    for before, after in pairwise(sent):
        said = [*before.messages, ("user", before.prompt), ("assistant", echo(before).text)]
        assert list(after.messages) == said
        assert after.history_tokens == (before.input_tokens or 0) + before.max_new_tokens
    assert sent[0].messages[0].role == "system"
    assert sent[0].history_tokens == 20
    assert [message["role"] for message in sent[2].as_messages()] == ["system", *["user", "assistant"] * 2, "user"]
    assert sent[2].as_text() == "\n\n".join(message["content"] for message in sent[2].as_messages())


def test_a_conversation_depends_on_its_number_alone() -> None:
    """Whatever was played before, in whichever process: turns, words, lengths and pauses are the same."""
    first = chat(turns=parse_lengths("uniform:2:9"), think_time=parse_pauses("exponential:5s"))
    second = from_dict(json.loads(json.dumps(first.as_dict())))
    assert second == first
    forwards = [play(first, number)[0] for number in range(6)]
    assert [play(second, number)[0] for number in reversed(range(6))] == forwards[::-1]
    assert len({sent[0].prompt for sent in forwards}) == 6
    assert len({len(sent) for sent in forwards}) > 1
    assert all(request.delay is None for sent in forwards for request in sent[:1])
    assert len({request.delay for sent in forwards for request in sent[1:]}) > 5


@pytest.mark.parametrize(
    ("shared", "same_system", "same_question"),
    [(None, True, False), (20, True, False), (8, False, False), (0, False, False), (30, True, True)],
)
def test_the_shared_prefix_is_that_long(shared: int | None, same_system: bool, same_question: bool) -> None:
    """All conversations begin with so many equal tokens: the system prompt, less, or more than that."""
    workload = chat(base=drawn("c", "40", "4", seed=3), system_tokens=20, shared_prefix=shared)
    one, other = (play(workload, number)[0][0].as_text().replace("\n\n", " ").split(" ") for number in (1, 2))
    common = next(place for place, words in enumerate(zip(one, other)) if words[0] != words[1])
    assert common == (20 if shared is None else shared)
    texts = [play(workload, number)[0][0] for number in (1, 2)]
    assert (texts[0].messages == texts[1].messages) is same_system
    assert (texts[0].prompt[:5] == texts[1].prompt[:5]) is same_question


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 120))
def test_what_is_kept_is_the_latest(tokens: list[int], most: int) -> None:
    """Of the turns the last ones, within the bound, and never fewer than fit."""
    said = [PastTurn(f"q{number}", "a", count) for number, count in enumerate(tokens)]
    assert parse_history("keep_all").sent(said) == said
    assert list(parse_history(f"last({most})").sent(said)) == said[max(0, len(said) - most) :]
    kept = list(parse_history(f"tokens({most})").sent(said))
    assert kept == said[len(said) - len(kept) :]
    assert sum(each.tokens for each in kept) <= most
    if len(kept) < len(said):
        assert sum(each.tokens for each in said[len(said) - len(kept) - 1 :]) > most


def test_a_summary_stands_for_what_left() -> None:
    """The model's own words about all but the latest turn; asked for in requests that are no turns."""
    sent, _ = play(chat(history=parse_history("summary(30)"), turns=parse_lengths("4")), 1)
    assert [request.turn for request in sent] == [1, 2, None, 3, None, 4]
    summary, third = sent[2], sent[3]
    assert (summary.purpose, summary.max_new_tokens) == ("summary", 30)
    assert [m.content for m in summary.messages] == [sent[0].prompt, echo(sent[0]).text]
    assert [m.content for m in third.messages] == [
        summary.prompt, echo(summary).text, sent[1].prompt, echo(sent[1]).text,
    ]  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_written_as_it_is_read(name: str) -> None:
    """What the manifest says can be put into a locustfile."""
    assert str(parse_history(WORDS[name])) == WORDS[name]
    with pytest.raises(UsageError):
        parse_history(WORDS[name] + "x")
    with pytest.raises(UsageError):
        parse_history(f"{name}(0)")


def test_a_turn_that_does_not_fit_ends_the_conversation() -> None:
    """Known beforehand, nothing is sent; with the tokens that the template adds, as the answers before told them."""
    for beyond in (0, 7):

        def model(request: Request, beyond: int = beyond) -> Reply:
            told = request.input_tokens + 3 + beyond * len(request.messages)
            return replace(echo(request), input_tokens=told)

        played = [play(chat(turns=parse_lengths("40"), total_most=400), number, model) for number in range(12)]
        assert {ended for _, ended in played} == {"history_full"}
        sent = [request for requests, _ in played for request in requests]
        totals = [
            request.input_tokens + 3 + beyond * len(request.messages) + request.max_new_tokens for request in sent
        ]
        assert max(totals) <= 400
        assert max(totals) > 400 - 9 - 30 - 9 - 2 * beyond


def test_a_refusal_is_learned_from() -> None:
    """Where the server does not tell what it takes: a refused turn ends its conversation, the next one ends before."""
    workload = chat(turns=parse_lengths("40"))

    def model(request: Request) -> Reply:
        total = request.input_tokens + request.max_new_tokens
        return echo(request) if total <= 300 else Reply(error="validation")

    refused = [sum(model(r).error is not None for r in play(workload, n, model)[0]) for n in range(8)]
    assert refused[0] == 1
    assert sum(refused) < 8
    assert play(workload, 9, model)[1] == "history_full"
    assert play(chat(), 0, lambda request: Reply(error="validation"))[1] == "failed"
    assert play(chat(), 0, lambda request: Reply(error="timeout"))[1] == "failed"


def test_a_script_asks_what_it_likes() -> None:
    """It is handed the answers, branches on them, and shares documents with other conversations."""

    def player(talk: Conversation) -> Generator[Request, Reply, None]:
        document = talk.words(50, shared_by="manual")
        reply = yield talk.ask(document + " " + talk.words(5), tokens=55, answer_tokens=3)
        if "«0»" in reply.text:
            reply = yield talk.ask(tokens=12, think_time=0.5)
        assert reply.output_tokens

    one, other = (play(chat(), number, player=player)[0] for number in (1, 2))
    assert [request.turn for request in one] == [1, 2]
    assert (one[0].max_new_tokens, one[0].input_tokens, one[1].delay) == (3, 55, 0.5)
    assert one[0].prompt[:200] == other[0].prompt[:200]
    assert one[0].prompt != other[0].prompt
    assert one[1].input_tokens == 55 + 3 + 12


def test_a_mix_keeps_its_parts_apart() -> None:
    """The same conversations as each part alone."""
    mix = Mix((chat(), drawn("d", "9", "9", seed=8)), (2.0, 1.0))
    assert from_dict(json.loads(json.dumps(mix.as_dict()))) == mix
    assert play(mix, 30)[0] == play(chat(), 3)[0]
    assert play(mix, 31)[0] == [drawn("d", "9", "9", seed=8).request(3)]
    assert mix.converses
