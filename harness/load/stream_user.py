"""StreamUser: the base class of locustfiles' users. It says what is asked; the load process sends it (`drivers`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

from locust import User, task

from harness.workload.chat import Conversation
from harness.workload.request import Reply, Request
from harness.workload.seeds import derive

TaskScript = Callable[[Any], Generator[Request, Reply, Any]]


class Driver(Protocol):
    """What sends for the users of a process."""

    def use(self, user: StreamUser) -> None:
        """What this user asks next, with the answers: a conversation, or one request. For a user that never waits all
        that it asks until nothing may be sent any more; at rest then.
        """
        ...


drivers: WeakKeyDictionary[Any, Driver] = WeakKeyDictionary()
"""By Locust's environment."""


class StreamUser(User):
    """A user that asks, reads the stream and goes on; derive one for each workload.

    workload: where lengths come from that are not given here. input_tokens, output_tokens: numbers or distributions, as
    `harness bench` takes them; of one turn. turns: of a conversation, likewise. think_time: between an answer and the
    user's next question, such as `5s` or `lognormal:8s:6s`. history: what goes with the next question: `keep_all`,
    `last(6)`, `tokens(4k)`, `summary(300)`. system_tokens: of a system prompt. shared_prefix: this many tokens from the
    beginning on are the same in all conversations; the system prompt where nothing is said.

    Tasks that yield are conversations of their own making: `reply = yield self.ask(tokens=120)`.

    api: tgi, openai-chat or openai-completions, None for what the service speaks best; stream: False asks for whole
    answers. By hand also: model_name: of the requests, None takes what the service tells; timeout: for one request;
    seed: of lengths and prompts. wait_time, on_start, weight and fixed_count are Locust's.
    """

    abstract = True
    workload: str = "questions"
    input_tokens: str | int | None = None
    output_tokens: str | int | None = None
    turns: str | int | None = None
    think_time: str | float | None = None
    history: str | None = None
    system_tokens: str | int | None = None
    shared_prefix: str | int | None = None
    api: str | None = None
    stream: bool = True
    model_name: str | None = None
    timeout: str = "10m"
    seed: int = 1

    scripts: ClassVar[tuple[TaskScript, ...]] = ()
    number: int | None = None  # among the users of all processes, from when it asks
    talk: Conversation

    def __init_subclass__(cls, **rest: Any) -> None:
        """Tasks that yield become scripts of conversations, of which each gets one by its number: so the same seed
        plays the same ones, whatever process they fall to.
        """
        super().__init_subclass__(**rest)
        own: list[Any] = [each for each in cls.tasks if each is not StreamUser.converse]
        cls.scripts = (
            *(script for script in cls.scripts if script not in own),
            *(each for each in own if inspect.isgeneratorfunction(each)),
        )
        others = [each for each in own if not inspect.isgeneratorfunction(each)]
        cls.tasks = [StreamUser.converse] * (len(cls.scripts) or int(not others)) + others

    @task
    def converse(self) -> None:
        """The next conversation, or request, with its answers."""
        drivers[self.environment].use(self)

    def script(self, talk: Conversation) -> Generator[Request, Reply, Any]:
        """What this user asks in a conversation."""
        self.talk = talk
        if not self.scripts:
            return talk.play()
        return self.scripts[derive(talk.chat.base.seed, "task", talk.number) % len(self.scripts)](self)

    def ask(
        self,
        text: str | None = None,
        *,
        tokens: int | None = None,
        answer_tokens: int | None = None,
        think_time: float | None = None,
    ) -> Request:
        """The next question of a conversation, to be yielded; hands back the Reply, with the model's own text.

        text: None for words in the length `tokens`; without that in one that is drawn, like answer_tokens and
        think_time (seconds before it is sent).
        """
        return self.talk.ask(text, tokens=tokens, answer_tokens=answer_tokens, think_time=think_time)

    def words(self, tokens: int, shared_by: str | None = None) -> str:
        """A text of this many tokens: this conversation's own, or the one of all that name it alike."""
        return self.talk.words(tokens, shared_by)


def waits(user: type[StreamUser]) -> bool:
    """Whether Locust has something to do between two of its conversations."""
    return user.wait_time is not User.wait_time or any(each is not StreamUser.converse for each in user.tasks)


def stream_users(environment: Any) -> list[type[StreamUser]]:
    return [each for each in environment.user_classes if issubclass(each, StreamUser)]
