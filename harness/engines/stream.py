"""Server-sent events of a token stream, read after the fact and at a cost of well under a microsecond for each.

The events of one stream differ in a few values only. So the first one is read as JSON, its form becomes a regular
expression in which those values are open, and a whole run of events of that form is then matched by one call. Whatever
does not match is read as JSON again. The expression admits nothing that JSON would refuse or that would mean something
else, so that both ways give the same answer (tests/engines/test_stream.py).

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate, repeat
from typing import Any, NamedTuple, Protocol

from harness.engines.base import Answer
from harness.engines.payload import json_object

_EOL = rb"(?:\r\n|\n|\r(?!\n))"
_LINE_END = re.compile(_EOL)
_EVENT_END = re.compile(_EOL + _EOL)

_NUMBER = rb"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_TEXT = rb'[^"\\\x00-\x1f]*(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*)*'
_SOME_TEXT = rb'(?=[^"])' + _TEXT
# A string, and where it is a key the scalar behind it. Every quote that this meets outside a match opens a string.
_MEMBER = re.compile(
    rb'"(?P<key>' + _TEXT + rb')"(?:\s*:\s*(?:"(?P<text>' + _TEXT + rb')"|(?P<number>' + _NUMBER + rb"))?)?"
)
_MOST_FORMS = 3


class Kind(IntEnum):
    """What one event is. TOKEN: carries a token without text for the user. Of the rest, CONTENT alone surely is one."""

    CONTENT = 0
    TOKEN = 1
    EMPTY_END = 2  # no text, but a finish reason: an end-of-sequence token, or no token at all
    EMPTY = 3
    OPENING = 4  # the first event, with a role and no text


class Heard(NamedTuple):
    """What one event was. plain: one token with text, and nothing else that the stream would have to remember."""

    kind: Kind
    tokens: int = 1
    plain: bool = False


@dataclass(slots=True)
class Stream:
    """What the events of one answer said. ends: offset behind each event in the body. final: the last message came.

    broken_json: an event's data was no JSON object. strange: bytes or events that mean nothing here.
    """

    ends: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    final: bool = False
    done: bool = False
    broken_json: bool = False
    strange: bool = False
    cut: bool = False


class Dialect(Protocol):
    """How one API writes its events. open_keys: the keys whose values differ from one token's event to the next."""

    open_keys: frozenset[bytes]

    def hear(self, stream: Stream, payload: Mapping[str, Any], name: str | None) -> Heard | None:
        """Notes what one event says; None where it is not about tokens.

        payload: the event's JSON object. name: its `event:` field.
        """
        ...


Form = re.Pattern[bytes]


class Memory:
    """The form of the last stream that was read, tried first on the next one."""

    form: Form | None = None


def read(body: bytes, dialect: Dialect, *, complete: bool, memory: Memory | None = None, fast: bool = True) -> Stream:
    """All events of a body. complete: the body's end was seen, so what follows the last blank line counts too."""
    stream, memory = Stream(), memory or Memory()
    fast = fast and _is_utf8(body)
    only_lf = b"\r" not in body
    at, learned = (3 if body.startswith(b"\xef\xbb\xbf") else 0), 0
    while at < len(body):
        if fast and memory.form is not None:
            at = _take_run(stream, body, at, memory.form)
        start, end = _blank_line(body, at, only_lf)
        if start < 0:
            break
        part, blank, at = body[at:start], body[start:end], end
        plain = _take_event(stream, dialect, part, at)
        if fast and plain and learned < _MOST_FORMS:
            memory.form = _form(part, blank, dialect.open_keys) or memory.form
            learned += 1
    if complete and body[at:].strip():
        _take_rest(stream, dialect, body[at:], len(body))
    return stream


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _blank_line(body: bytes, at: int, only_lf: bool) -> tuple[int, int]:
    """Where the event that starts at `at` ends and where the next one starts; (-1, 0) where it does not end."""
    if only_lf:
        start = body.find(b"\n\n", at)
        return start, start + 2
    match = _EVENT_END.search(body, at)
    return match.span() if match else (-1, 0)


def _take_run(stream: Stream, body: bytes, at: int, form: Form) -> int:
    match = form.match(body, at)
    if match is None or match.end() == at:
        return at
    blank = b"\r\n\r\n" if body[match.end() - 2 : match.end()] == b"\r\n" else b"\n\n"
    parts = body[at : match.end()].split(blank)
    parts.pop()
    size = len(blank)
    ends = list(accumulate([len(part) + size for part in parts], initial=at))
    stream.ends.extend(ends[1:])
    stream.counts.extend(repeat(1, len(parts)))
    stream.kinds.extend(repeat(Kind.CONTENT, len(parts)))
    return match.end()


def _take_event(stream: Stream, dialect: Dialect, part: bytes, end: int) -> bool:
    """Reads one event as JSON; whether it was a token's event like any other."""
    data, name = _fields(part, stream)
    if data is None:
        return False
    if data.strip() == b"[DONE]":
        stream.done = True
        return False
    payload = json_object(data)
    if payload is None:
        stream.broken_json = stream.broken_json or not stream.done
        return False
    heard = dialect.hear(stream, payload, name)
    if heard is None:
        return False
    stream.ends.append(end)
    stream.kinds.append(heard.kind)
    stream.counts.append(heard.tokens)
    return heard.plain


def _take_rest(stream: Stream, dialect: Dialect, rest: bytes, end: int) -> None:
    """The event behind which the body ended without a blank line; half an event means that the stream was cut."""
    scratch = Stream()
    data, _ = _fields(rest, scratch)
    if data is not None and data.strip() != b"[DONE]" and json_object(data) is None:
        stream.cut = True
        return
    _take_event(stream, dialect, rest, end)


def _fields(part: bytes, stream: Stream) -> tuple[bytes | None, str | None]:
    """The data and the name of one event; None where it has no data, as a comment has none."""
    if part.startswith(b"data:") and b"\n" not in part and b"\r" not in part:
        return (part[6:] if part[5:6] == b" " else part[5:]) or None, None
    data: list[bytes] = []
    name = None
    for line in _LINE_END.split(part):
        key, colon, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if key == b"data" and colon:
            data.append(value)
        elif key == b"event" and colon:
            name = value.decode("utf-8", "replace")
        elif key not in (b"", b"id", b"retry"):
            stream.strange = True
    joined = b"\n".join(data)
    return joined or None, name


def _form(part: bytes, blank: bytes, open_keys: frozenset[bytes]) -> Form | None:
    """The expression of all events that are like this one but for the values of the open keys."""
    if blank not in (b"\n\n", b"\r\n\r\n") or not part.startswith(b"data:") or b"\n" in part or b"\r" in part:
        return None
    pattern, at = [], 0
    for member in _MEMBER.finditer(part, 5):
        group = "text" if member["text"] else "number" if member["number"] else None
        if group is None or member["key"] not in open_keys:
            continue
        start, end = member.span(group)
        pattern += [re.escape(part[at:start]), _SOME_TEXT if group == "text" else _NUMBER]
        at = end
    pattern += [re.escape(part[at:]), blank]
    return _compile(b"".join(pattern))


@lru_cache(maxsize=64)
def _compile(pattern: bytes) -> Form:
    return re.compile(b"(?:" + pattern + b")*")


def to_answer(stream: Stream, slices: Sequence[bytes], *, complete: bool) -> Answer:
    """The stream in terms of the slices that it arrived in, with the judgement on how it ended."""
    sizes = list(accumulate(map(len, slices)))
    slice_of_event = list(map(bisect_left, repeat(sizes), stream.ends))
    return Answer(
        slice_of_event=slice_of_event,
        token_count=stream.counts,
        first_content=stream.kinds.index(Kind.CONTENT) if Kind.CONTENT in stream.kinds else None,
        input_tokens=stream.input_tokens,
        output_tokens=stream.output_tokens,
        finish_reason=stream.finish_reason,
        error_kind=_judge(stream, complete),
        glued_events=len(slice_of_event) - len(set(slice_of_event)),
    )


def _judge(stream: Stream, complete: bool) -> str | None:
    """The error kind of a stream with status 200, None where nothing is wrong with it."""
    if stream.error_kind is not None:
        return stream.error_kind
    if stream.broken_json:
        return "protocol"
    if not stream.final:
        if stream.cut or not (complete or stream.done):
            return "stream_broken"
        if stream.ends:
            return "incomplete"
        return "protocol" if stream.strange else "empty"
    return None if stream.ends else "empty"
