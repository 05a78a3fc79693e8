"""A workload of conversations: each turn waits for the answer before, and is sent with what was said.

Everything that is drawn depends on the seed, the conversation's number and the turn, and on nothing else: whatever
process plays a conversation, it asks the same. The answers in the history are the model's own.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.workload.drawn import DrawnWorkload
from harness.workload.hashing import hash_of
from harness.workload.history import History, KeepAll, PastTurn, parse_history
from harness.workload.lengths import Fixed, Lengths, mean, parse_lengths
from harness.workload.pauses import NO_PAUSE, Pauses, parse_pauses
from harness.workload.prompts import prompt
from harness.workload.request import Message, Player, Reply, Request, Script
from harness.workload.seeds import derive, uniform
from harness.workload.traces.messages import estimated_tokens
from harness.workload.vocabulary import Vocabulary

TURNS_MOST = 100_000  # of one conversation: keeps the draws of two conversations apart

_ENDED_BY_MODEL = ("stop", "eos_token")
ONE, KEEP_ALL = Fixed(1), KeepAll()


@dataclass
class KnownLimits:
    """What the service takes, in tokens; None where it is not known. Two processes learn each for itself.

    refused: the shortest prompt with its answer that was refused as too long.
    """

    prompt: int | None = None
    total: int | None = None
    refused: int | None = None

    def holds(self, prompt_tokens: int, answer_tokens: int) -> bool:
        total = prompt_tokens + answer_tokens
        return (
            (self.prompt is None or prompt_tokens <= self.prompt)
            and (self.total is None or total <= self.total)
            and (self.refused is None or total < self.refused)
        )


@dataclass(frozen=True)
class Chat:
    """base: lengths of each question and answer, seed, words. turns: of a conversation. think_time: between an answer
    and the next question. system_tokens: of a system prompt at the head of each conversation. shared_prefix: this many
    tokens from the beginning on are the same in all conversations; None: the system prompt. history: what goes with the
    next question. script: what plays the conversations where it is not `Talk.play`, for the manifest. prompt_most,
    total_most: tokens that the service takes, where it tells.
    """

    base: DrawnWorkload
    turns: Lengths = ONE
    think_time: Pauses = NO_PAUSE
    system_tokens: int = 0
    shared_prefix: int | None = None
    history: History = KEEP_ALL
    script: str | None = None
    prompt_most: int | None = None
    total_most: int | None = None

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def offsets(self) -> None:
        return None

    @cached_property
    def room(self) -> KnownLimits:
        return KnownLimits(self.prompt_most, self.total_most)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """For texts that are part of a prompt: what the engine adds to a prompt it does not add to each of these."""
        return replace(self.base.vocabulary, overhead=0)

    def lengths(self, number: int, turn: int = 1) -> tuple[int, int]:
        """Tokens of the question and of the answer, in this turn of this conversation."""
        return self.base.lengths(number * TURNS_MOST + turn - 1)

    def turns_of(self, number: int) -> int:
        return self.turns.at(uniform(self.base.seed, "turns", number))

    @property
    def converses(self) -> bool:
        return True

    def start(self, number: int, player: Player | None = None) -> Script:
        """The conversation of this number."""
        talk = Conversation(self, number)
        return talk.run(talk.play() if player is None else player(talk))

    def pause_after(self, number: int) -> float:
        """Seconds that the user thinks after the last answer, before it begins another conversation."""
        return self.think_time.at(uniform(self.base.seed, "think time", (number + 1) * TURNS_MOST - 1))

    def words(self, tokens: int, name: str, number: int, shared: int = 0) -> str:
        """A text of this many tokens that belongs to the name and number. shared: this many at its beginning to the
        name alone.
        """
        if shared >= tokens:
            number, shared = 0, 0
            name += "/shared"
        return prompt(self.vocabulary, tokens, self.base.seed, f"{self.base.salt}/{name}", number, shared=shared)[0]

    @property
    def seed(self) -> int:
        return self.base.seed

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "chat",
            "base": self.base.as_dict(),
            "turns": self.turns.text(),
            "think_time": str(self.think_time),
            "system_tokens": self.system_tokens,
            "shared_prefix": self.shared_prefix,
            "history": str(self.history),
            "script": self.script,
            "prompt_most": self.prompt_most,
            "total_most": self.total_most,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Chat:
        """Raises UsageError."""
        told = {key: value for key, value in fields.items() if key != "kind"}
        return cls(
            **told
            | {
                "base": DrawnWorkload.from_dict(fields["base"]),
                "turns": parse_lengths(fields["turns"]),
                "think_time": parse_pauses(fields["think_time"]),
                "history": parse_history(fields["history"]),
            }
        )

    def describe(self) -> dict[str, Any]:
        """mean_input_tokens is that of a question, without what was said before it."""
        base = self.base.describe()
        asked = {
            "turns": str(self.turns) if self.script is None else "as the script asks",
            "think_time": str(self.think_time),
            "system_tokens": self.system_tokens,
            "shared_prefix_tokens": self._shared,
            "history": str(self.history),
            "script": self.script,
        }
        return {
            **base,
            **asked,
            "mean_turns": round(mean(self.turns), 1) if self.script is None else None,
            "hash": hash_of({"base": base["hash"], **asked}),
        }

    @property
    def _shared(self) -> int:
        return self.system_tokens if self.shared_prefix is None else self.shared_prefix


class Conversation:
    """One conversation under way: what was said, and what is asked next.

    number: of the conversation. turn: of the question asked last, from 1. said: what it remembers. random: for scripts,
    seeded by the conversation's number.
    """

    def __init__(self, chat: Chat, number: int) -> None:
        self.chat, self.number, self.turn = chat, number, 0
        self.said: list[PastTurn] = []
        self.random = random.Random(derive(chat.base.seed, "script", number))
        self._texts = 0
        self._seen: list[tuple[int, int]] = []  # of answered requests: messages, and tokens beyond those asked

    @property
    def turns(self) -> int:
        """How many turns were drawn for it."""
        return self.chat.turns_of(self.number)

    def play(self) -> Generator[Request, Reply, None]:
        """The usual conversation: as many questions as were drawn, each in the length that was drawn."""
        for _ in range(self.turns):
            yield self.ask()

    def ask(
        self,
        text: str | None = None,
        *,
        tokens: int | None = None,
        answer_tokens: int | None = None,
        think_time: float | None = None,
    ) -> Request:
        """The next question; what was said before is added when it is sent. text: None for words in the length
        `tokens`, and without that in a length that is drawn; with both, tokens is what the text has. answer_tokens,
        think_time (seconds): drawn where they are not given.
        """
        chat, turn = self.chat, self.turn + 1
        address = self.number * TURNS_MOST + turn - 1
        drawn_tokens, drawn_answer = chat.lengths(self.number, turn)
        counted = text is None or tokens is not None
        if text is None:
            tokens = max(1, (tokens or drawn_tokens) - (chat.base.vocabulary.overhead if turn == 1 else 0))
            shared = max(0, chat._shared - chat.system_tokens) if turn == 1 else 0
            text = chat.words(tokens, f"turn {turn}", self.number, shared)
        elif tokens is None:
            tokens = estimated_tokens(text)
        if think_time is None:
            think_time = chat.think_time.at(uniform(chat.base.seed, "think time", address))
        return Request(
            text,
            tokens,
            answer_tokens or drawn_answer,
            seed=derive(chat.base.seed, "sampling", address) if chat.base.sampled else None,
            turn=turn,
            delay=think_time if turn > 1 else None,
            counted=counted,
            wants_answer=True,
        )

    def words(self, tokens: int, shared_by: str | None = None) -> str:
        """A text of this many tokens: this conversation's own, another each time; or the one of all that name it alike,
        such as a document that many ask about.
        """
        if shared_by is not None:
            return self.chat.words(tokens, f"shared {shared_by}", 0)
        self._texts += 1
        return self.chat.words(tokens, f"text {self._texts}", self.number)

    def run(self, script: Generator[Request, Reply, Any]) -> Script:
        """Plays a script: hands it the answers, remembers them, and ends where the next question does not fit."""
        reply = None
        while True:
            try:
                request = next(script) if reply is None else script.send(reply)
            except StopIteration:
                return "completed"
            if self.said:
                yield from self.chat.history.between(self.said)
            question, request = request.input_tokens, self._with_history(request)
            if self.turn and not self._fits(request):
                script.close()
                return "history_full"
            reply = yield request
            if reply.error is not None:
                script.close()
                return self._why(request, reply)
            self._remember(request, question, reply)

    def _with_history(self, request: Request) -> Request:
        sent = self.chat.history.sent(self.said)
        vocabulary = self.chat.base.vocabulary
        before = self.chat.system_tokens + sum(each.tokens + vocabulary.per_exchange for each in sent)
        return replace(
            request,
            input_tokens=before + request.input_tokens + vocabulary.overhead,
            messages=(*self._system(), *(message for each in sent for message in each.messages)),
            history_tokens=before,
            wants_answer=True,
        )

    def _system(self) -> tuple[Message, ...]:
        chat = self.chat
        if not chat.system_tokens:
            return ()
        return (Message("system", chat.words(chat.system_tokens, "system", self.number, chat._shared)),)

    def _remember(self, request: Request, question: int, reply: Reply) -> None:
        """question: tokens of the prompt alone."""
        self.turn = request.turn or self.turn
        answered = request.max_new_tokens if reply.output_tokens is None else reply.output_tokens
        if reply.finish_reason in _ENDED_BY_MODEL:
            answered = max(0, answered - 1)  # the token that ended it is the template's next time
        self.said.append(PastTurn(request.prompt, reply.text, question + answered))
        if reply.input_tokens is not None:
            self._seen.append((len(request.messages) + 1, reply.input_tokens - request.input_tokens))

    def _fits(self, request: Request) -> bool:
        return self.chat.room.holds(self.expected_tokens(request), request.max_new_tokens)

    def expected_tokens(self, request: Request) -> int:
        """Of the prompt as the server will count it: the template's own tokens, as far as the answers before told."""
        if not self._seen:
            return request.input_tokens
        messages, beyond = self._seen[-1]
        if len(self._seen) > 1 and messages != self._seen[-2][0]:
            each = (beyond - self._seen[-2][1]) / (messages - self._seen[-2][0])
            beyond += round(each * (len(request.messages) + 1 - messages))
        return request.input_tokens + beyond

    def _why(self, request: Request, reply: Reply) -> str:
        """A later turn is like those before but for its length: where they were taken and it is refused as malformed or
        too long, it is too long.
        """
        if reply.error != "validation" or not self.turn:
            return "failed"
        total, room = self.expected_tokens(request) + request.max_new_tokens, self.chat.room
        room.refused = total if room.refused is None else min(room.refused, total)
        return "history_full"
