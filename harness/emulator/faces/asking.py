"""Reads OpenAI's request bodies: a chat or a prompt, how long the answer may be, and what is reported with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.emulator.bodies import Message
from harness.emulator.faces.answers import Generation
from harness.emulator.faces.wire import Problem
from harness.emulator.model import ServedModel
from harness.emulator.template import TemplateProblem
from harness.emulator.tokens import AnswerToken, alternatives

Wrong = Callable[[str, Any, str], Problem]
"""How a face refuses a field: its name, what was found, what was expected."""


class Fields:
    """A body's fields by type. A missing one and null are the same."""

    def __init__(self, body: Mapping[str, Any], wrong: Wrong) -> None:
        self.body, self._wrong = body, wrong

    def _typed(self, name: str, kinds: tuple[type, ...], expected: str) -> Any:
        value = self.body.get(name)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self._wrong(name, value, expected)
        return value

    def whole(self, name: str) -> int | None:
        value = self._typed(name, (int,), "integer")
        return None if value is None else int(value)

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, (bool,), "boolean"))

    def text(self, name: str) -> str | None:
        value = self._typed(name, (str,), "string")
        return None if value is None else str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """One string, or several."""
        value = self._typed(name, (str, list), "string")
        each = [value] if isinstance(value, str) else value or []
        if not all(isinstance(one, str) for one in each):
            raise self._wrong(name, value, "list of strings")
        return tuple(one for one in each if one)

    def inner(self, name: str) -> Fields:
        """The fields of an object."""
        return Fields(self._typed(name, (dict,), "object") or {}, self._wrong)


@dataclass(frozen=True)
class ParsedRequest:
    """A body in our words. most: as asked, None for as much as fits. usage: at the end; every: of each frame.

    timed: what the engine measured is in each frame. top: likeliest tokens to name beside each; None without log
    probabilities.
    """

    ids: list[int]
    chat: bool
    most: int | None
    least: int
    ignore_eos: bool
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    usage: bool
    every: bool
    timed: bool
    top: int | None


def read_asked(
    body: Mapping[str, Any], model: ServedModel, wrong: Wrong, *, chat: bool, special_tokens: bool = False
) -> ParsedRequest:
    """A chat's or a completion's body. special_tokens: of chats, as in `chat_ids`. Raises Problem."""
    fields = Fields(body, wrong)
    if (fields.whole("n") or 1) != 1:
        raise wrong("n", body["n"], "1 (the emulator gives one answer)")
    most = fields.whole("max_completion_tokens") if chat else None
    options = fields.inner("stream_options")
    usage = options.flag("include_usage")
    top = None
    if chat and fields.flag("logprobs"):
        top = fields.whole("top_logprobs") or 0
    elif not chat:
        top = fields.whole("logprobs")
    if chat:
        ids = chat_ids(body, model, wrong, special_tokens=special_tokens)
    else:
        ids = prompt_ids(body.get("prompt"), model, wrong)
    return ParsedRequest(
        ids=ids,
        chat=chat,
        most=most if most is not None else fields.whole("max_tokens"),
        least=fields.whole("min_tokens") or 0,
        ignore_eos=fields.flag("ignore_eos"),
        stop=fields.texts("stop"),
        seed=fields.whole("seed") if body.get("temperature") != 0 else None,
        stream=fields.flag("stream"),
        usage=usage,
        every=options.flag("continuous_usage_stats"),
        timed=fields.flag("timings_per_token"),
        top=top,
    )


def chat_ids(body: Mapping[str, Any], model: ServedModel, wrong: Wrong, *, special_tokens: bool = False) -> list[int]:
    """The tokens of a chat. special_tokens: the engine puts its own in front of what the template says."""
    return model.tokenizer.encode(chat_text(body, model, wrong), special_tokens=special_tokens).ids


def chat_text(body: Mapping[str, Any], model: ServedModel, wrong: Wrong) -> str:
    """A chat as its prompt, by the model's template or a built-in one. Raises Problem."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise wrong("messages", messages, "list")
    if model.template is None:
        raise Problem(400, "this model has no chat template")
    try:
        return model.template.render([_message(each, wrong) for each in messages], None, "")
    except TemplateProblem as problem:
        raise Problem(400, str(problem)) from None


def _message(message: Any, wrong: Wrong) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise wrong("messages", message, "messages with role and content")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise wrong("messages", content, "text (the emulator reads nothing else)")
        content = "".join(str(part) for part in parts)
    if content is not None and not isinstance(content, str):
        raise wrong("messages", content, "text")
    return Message(message["role"], content or "")


def prompt_ids(prompt: Any, model: ServedModel, wrong: Wrong, *, special_tokens: bool = True) -> list[int]:
    """The tokens of a prompt: a text, token ids, or one of these in a list."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt, special_tokens=special_tokens).ids
    if isinstance(prompt, list) and prompt and all(isinstance(each, int) for each in prompt):
        return list(prompt)
    raise wrong("prompt", prompt, "one text, or one list of token ids")


def chat_logprob(generation: Generation, index: int, top: int, speech: Any) -> dict[str, Any]:
    """One token of a chat's `logprobs.content`; the figures are made up."""
    spoken = generation.spoken(index)
    likeliest = alternatives(spoken, index, top, speech) if top else []
    return {**_entry(spoken), "top_logprobs": [_entry(each) for each in likeliest]}


def _entry(spoken: AnswerToken) -> dict[str, Any]:
    return {"token": spoken.text, "logprob": spoken.logprob, "bytes": list(spoken.text.encode())}


def strings(ids: Sequence[int], model: ServedModel) -> list[str]:
    """The texts of tokens."""
    return [model.tokenizer.text_of(each) for each in ids]
