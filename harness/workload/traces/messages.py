"""Messages of a chat as the published data sets write them: who says it, and what, in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.workload.traces.row import Record
from harness.workload.traces.tally import Tally
from harness.workload.traces.values import whole_text

CHARACTERS_PER_TOKEN = 4
"""Of English text with the vocabularies in use; the usual rule of thumb, and only that."""

ESTIMATED = f"answer lengths are estimated from the recorded texts, {CHARACTERS_PER_TOKEN} characters a token"

_ANSWERS = {"assistant", "gpt", "chatgpt", "bing", "bard", "model", "ai"}


@dataclass(frozen=True)
class Message:
    """is_answer: the model said it."""

    is_answer: bool
    text: str


def read_messages(record: Record, column: str, value: Any, tally: Tally) -> list[Message]:
    """Of `[{"role": ..., "content": ...}]` or `[{"from": ..., "value": ...}]`. Raises UsageError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise record.wrong(column, "a list of messages", value)
    return [_message(record, column, each, tally) for each in value]


def _message(record: Record, column: str, value: Any, tally: Tally) -> Message:
    if not isinstance(value, Mapping):
        raise record.wrong(column, "a message", value)
    role = value.get("role", value.get("from"))
    if not isinstance(role, str):
        raise record.wrong(column, "a message with a role", value)
    said = _plain(value.get("content", value.get("value")), tally)
    if said is None:
        raise record.wrong(column, "a message with a text", value)
    return Message(role.lower() in _ANSWERS, whole_text(said, tally))


def _plain(content: Any, tally: Tally) -> str | None:
    """The text of a message: given as such, or in parts, of which only those of text can be sent."""
    if content is None:
        return ""  # an answer that only calls tools
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return None
    texts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    if len(texts) < len(content):
        tally.alter("sent without the images, sounds or tool results among their messages")
    return "\n".join(texts)


def joined(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages if message.text)


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has; at least one."""
    return max(1, round(len(text) / CHARACTERS_PER_TOKEN))
