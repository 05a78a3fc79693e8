"""Reads the server-sent events of a token stream in slices as they arrive, well under a microsecond each.

The events of one stream differ in a few values only. So the first one is read as JSON, and its form is remembered, in
which those values are open. Later events are read in the first of three ways that fits:

1. slices that begin and end like events of the form and hold as many lines, quotes and nothing in between: counted;
2. a run of events of the form, wherever slices begin: matched by one regular expression. It admits nothing that JSON
   would refuse or that would mean something else;
3. whatever is left: read as JSON.

All give the same answer (tests/engines/test_stream.py).

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate, pairwise, repeat
from typing import Any, Literal, NamedTuple, Protocol

from harness.engines.answer import MOST_DOCUMENT, NO_EVENTS, Answer, TokenEvents
from harness.engines.payload import json_object

_EOL = rb"(?:\r\n|\n|\r(?!\n))"
_LINE_END = re.compile(_EOL)
_EVENT_END = re.compile(_EOL + _EOL)

_WHOLE = rb"(?:0|[1-9]\d{0,8})"  # what is longer is read as JSON, and no count
_NUMBER = rb"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_TEXT = rb'[^"\\\x00-\x1f]*(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*)*'
_SOME_TEXT = rb'(?=[^"])' + _TEXT
# A string, and where it is a key the scalar behind it. Every quote that this meets outside a match opens a string.
_MEMBER = re.compile(
    rb'"(?P<key>' + _TEXT + rb')"(?:\s*:\s*(?:"(?P<text>' + _TEXT + rb')"|(?P<number>' + _NUMBER + rb"))?)?"
)
_MOST_FORMS = 3
MOST_EVENT = 1 << 20  # bytes; an event of a token has some hundreds
_CARRIED = 16 << 10
_WORTH_COUNTING = 3  # slices


class EventKind(IntEnum):
    """What one event is. TOKEN: carries a token without text for the user. Of the rest, CONTENT alone surely is one."""

    CONTENT = 0
    TOKEN = 1
    EMPTY_END = 2  # no text, but a finish reason: an end-of-sequence token, or no token at all
    EMPTY = 3
    OPENING = 4  # the first event, with a role and no text


class StreamEvent(NamedTuple):
    """What one event was. plain: text, and nothing else that the stream would have to remember. size: of its text, in
    bytes as they came, or about this many.
    """

    kind: EventKind
    tokens: int = 1
    plain: bool = False
    size: int = 0


@dataclass(slots=True)
class Stream:
    """What the events of one answer said. ends: offset behind each event in the body. final: the last message came.

    broken_json: an event's data was no JSON object. strange: bytes or events that mean nothing here.
    marks: each time that the server told how many tokens there were so far: the events until then, that one included,
    and what it told. owned: events whose own tokens the server listed. thoughts: reasoning came as text; unseen: tokens
    of reasoning, as told. roles: the last event names a role, as all of TGI's do. text, first_text: bytes of the text
    of all events, and of the first that has any; estimates, by which a count that was told at the end is divided.
    """

    ends: array[int] = field(default_factory=lambda: array("q"))
    counts: list[int] = field(default_factory=list)
    kinds: list[EventKind] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    final: bool = False
    done: bool = False
    broken_json: bool = False
    strange: bool = False
    cut: bool = False
    marks: list[tuple[int, int]] = field(default_factory=list)
    owned: int = 0
    thoughts: bool = False
    unseen: int = 0
    roles: bool = False
    count_told: Literal["per_event", "per_answer"] | None = None
    first_share: float | None = None
    text: int = field(default=0, compare=False)
    first_text: int = field(default=0, compare=False)

    def add_told(self, told: Sequence[int]) -> None:
        """Counts of a run of events with text, each of which tells how many tokens there are so far."""
        events, before = self.marks[-1] if self.marks else (0, 0)
        first = len(self.kinds)
        self.counts.append(max(1, told[0] - before) if events == first else 1)
        self.counts.extend([max(1, after - so_far) for so_far, after in pairwise(told)])
        self.marks.extend(enumerate(told, first + 1))
        self.output_tokens = max(self.output_tokens or 0, *told)

    def add_text(self, size: int, first: int) -> None:
        """Bytes of text of one event or of a run of them, and of the first of these."""
        self.text += size
        self.first_text = self.first_text or first


class StreamFormat(Protocol):
    """How one API writes its events. open_keys: the keys whose values differ from one token's event to the next.
    count_keys: those that do too where each event tells how many tokens there are so far, that count first of all.
    """

    open_keys: frozenset[bytes]
    count_keys: tuple[bytes, ...]

    def on_event(self, stream: Stream, payload: Mapping[str, Any], name: str | None) -> StreamEvent | None:
        """Notes what one event says; None where it is not about tokens.

        payload: the event's JSON object. name: its `event:` field.
        """
        ...

    def settle(self, stream: Stream, *, complete: bool) -> Stream:
        """What can only be decided when all events are there. complete: the body's end was seen."""
        ...

    def whole(self, body: bytes, slices: int, complete: bool) -> Answer:
        """What one document says that came where a stream was asked for."""
        ...


@dataclass(frozen=True)
class EventForm:
    """What the events of a stream have in common.

    pattern: matches a run of them. head, tail: how each begins and ends, blank line included. quotes, empty: quotation
    marks and empty strings in each. countable: such events may be told by these alone. bare: bytes of such an event
    without its text. thoughts: its text is reasoning. count: finds in each what it tells of the tokens so far.
    """

    pattern: re.Pattern[bytes]
    head: bytes
    tail: bytes
    quotes: int
    empty: int
    countable: bool
    bare: int
    thoughts: bool
    count: re.Pattern[bytes] | None


class FormMemory:
    """The form of the last stream that was read, tried first on the next one."""

    form: EventForm | None = None


class StreamReading:
    """One streamed answer, read in slices as they come. fast: False reads everything as JSON."""

    def __init__(self, stream_format: StreamFormat, memory: FormMemory | None = None, *, fast: bool = True) -> None:
        self.stream = Stream()
        self._stream_format, self._memory, self._fast = stream_format, memory or FormMemory(), fast
        self._sizes = array("q")  # where each slice ends in the body
        self._total = 0
        self._carry, self._base = b"", 0  # what no event was made of yet, and where in the body it begins
        self._heard = False  # an event with text: the first one is looked at more closely than the rest
        self._learned = 0
        self._document: list[bytes] | None = None  # the body, where it is not a stream
        self.too_large = False  # more without an end than any answer has; what follows is not looked at
        self._blank_so_far = True

    @property
    def events(self) -> int:
        """Token events so far; a role alone is none."""
        kinds = self.stream.kinds
        return len(kinds) - (bool(kinds) and kinds[0] is EventKind.OPENING)

    @property
    def over(self) -> bool:
        return self.stream.final or (self.stream.done and self.stream.finish_reason is not None)

    def since(self, number: int) -> TokenEvents:
        """The events from this number on, as far as they can be told before the end."""
        stream, first = self.stream, number
        if number == 0:
            if EventKind.CONTENT not in stream.kinds:
                return NO_EVENTS
            first = stream.kinds.index(EventKind.CONTENT)
        until = len(stream.kinds)
        ends, tokens = stream.ends[first:], stream.counts[first:]
        kinds = stream.kinds[first:]
        # Of other kinds only the end may tell whether they are tokens.
        if kinds.count(EventKind.CONTENT) + kinds.count(EventKind.TOKEN) < len(kinds):
            sure = [index for index, kind in enumerate(kinds) if kind <= EventKind.TOKEN]
            ends, tokens = array("q", [ends[index] for index in sure]), [tokens[index] for index in sure]
        if tokens:
            tokens[0] += stream.kinds[number:first].count(EventKind.TOKEN)
        at = bisect_left(self._sizes, ends[0]) if ends else 0
        if self._sizes[at : at + len(ends)] == ends:  # the usual case: one event a slice
            return TokenEvents(range(at, at + len(ends)), tokens, until)
        return TokenEvents([bisect_left(self._sizes, end, at) for end in ends], tokens, until)

    def feed(self, slices: Sequence[bytes]) -> None:
        """The next slices of the body; an empty one holds its place in the numbers of the slices."""
        ends = list(accumulate(map(len, slices), initial=self._total))
        self._sizes.extend(ends[1:])
        if self._blank_so_far and (begins := b"".join(slices).lstrip()[:1]):
            self._blank_so_far = False
            self._document = [] if begins == b"{" else None  # no line of an event stream begins so
        self._total = ends[-1]
        if self.too_large:
            return
        if self._document is not None:
            self._document += slices
            self.too_large = self._total > MOST_DOCUMENT
            if self.too_large:
                self._document.clear()
            return
        taken = 0
        # One at a time looks at all that is carried for each of them.
        while not self._heard and taken < len(slices) and len(self._carry) < _CARRIED:
            self._take(slices[taken])
            taken += 1
        if self._fast and not self._carry:
            taken += self._count(slices[taken:], ends[taken + 1 :])
        if taken < len(slices):
            self._base = ends[taken] - len(self._carry)
            self._take(b"".join(slices[taken:]))
        else:
            self._base = self._total - len(self._carry)
        if len(self._carry) > MOST_EVENT:
            self.too_large, self._carry, self._base = True, b"", self._total

    def finish(self, *, complete: bool) -> Answer:
        """What the answer said. complete: the body's end was seen, so what follows the last blank line counts too."""
        if self.too_large:
            self.stream.error_kind = "too_large"
            return to_answer(self.end(complete=complete), self._sizes, complete=complete)
        if self._document is not None:
            answer = self._stream_format.whole(b"".join(self._document), len(self._sizes), complete)
            answer.streamed = False
            return answer
        return to_answer(self.end(complete=complete), self._sizes, complete=complete)

    def end(self, *, complete: bool) -> Stream:
        body, self._carry = self._carry, b""
        at = self._read(body)
        if complete and body[at:].strip():
            _take_rest(self.stream, self._stream_format, body[at:], self._base + len(body))
        return self._stream_format.settle(self.stream, complete=complete)

    def _count(self, slices: Sequence[bytes], ends: Sequence[int]) -> int:
        """Takes the slices, from the first on, that hold nothing but whole events of the form; how many those are."""
        form = self._memory.form
        if form is None or not form.countable or len(slices) < _WORTH_COUNTING:
            return 0
        tail = form.tail
        plain = [each.endswith(tail) for each in slices]
        count = len(plain) if all(plain) else plain.index(False)
        events: Sequence[int] = ends[:count]
        joined = b"".join(slices[:count])
        lines = joined.count(b"\n")
        if lines != 2 * count:  # several events in one slice, or something else
            numbers = [each.count(tail) for each in slices[:count]]
            events = [end for end, number in zip(ends, numbers) for _ in range(number)]
        if count < _WORTH_COUNTING or not _are_alike(joined, form, len(events), lines):
            return 0
        self._add_text(form, len(joined), len(events), len(joined) // len(events))
        self.stream.ends.extend(events)
        self.stream.counts.extend(repeat(1, len(events)))
        self.stream.kinds.extend(repeat(EventKind.CONTENT, len(events)))
        return count

    def _take(self, piece: bytes) -> None:
        """The events of the bytes so far; what is left is carried. A last CR waits for the LF that may follow."""
        body = self._carry + piece if self._carry else piece
        whole = body[:-1] if body.endswith(b"\r") else body
        at = self._read(whole)
        self._carry, self._base = body[at:], self._base + at

    def _read(self, body: bytes) -> int:
        """All events of a body that begins at the base; how far they reach."""
        stream, memory = self.stream, self._memory
        fast = self._fast and _is_utf8(body)
        only_lf = b"\r" not in body
        at = 3 if self._base == 0 and body.startswith(b"\xef\xbb\xbf") else 0
        while at < len(body):
            if fast and memory.form is not None:
                at = self._match(body, at, memory.form)
            start, end = event_end(body, at, only_lf)
            if start < 0:
                break
            part, blank, at = body[at:start], body[start:end], end
            told = len(stream.marks)
            plain = _take_event(stream, self._stream_format, part, self._base + at)
            self._heard = self._heard or plain
            if fast and plain and self._learned < _MOST_FORMS:
                count = stream.marks[-1][1] if len(stream.marks) > told else None
                memory.form = _form(part, blank, self._stream_format, count) or memory.form
                self._learned += 1
        return at

    def _match(self, body: bytes, at: int, form: EventForm) -> int:
        """Takes the run of events of the form that begins here; where it ends."""
        match = form.pattern.match(body, at)
        if match is None or match.end() == at:
            return at
        blank = b"\r\n\r\n" if body[match.end() - 2 : match.end()] == b"\r\n" else b"\n\n"
        run = body[at : match.end()]
        parts = run.split(blank)
        parts.pop()
        if form.count is not None:
            parts.pop()  # read as JSON: what else it tells, such as the prompt's tokens, is what all of them told
            if not parts:
                return at
        size = len(blank)
        ends = list(accumulate([len(part) + size for part in parts], initial=self._base + at))
        if form.count is None:
            self._add_text(form, ends[-1] - ends[0], len(parts), ends[1] - ends[0])
            self.stream.counts.extend(repeat(1, len(parts)))
        else:
            self.stream.thoughts = self.stream.thoughts or form.thoughts
            self.stream.add_told([int(each) for each in form.count.findall(run)[: len(parts)]])
        self.stream.ends.extend(ends[1:])
        self.stream.kinds.extend(repeat(EventKind.CONTENT, len(parts)))
        self._heard = True
        return ends[-1] - self._base

    def _add_text(self, form: EventForm, size: int, events: int, first: int) -> None:
        """Note how much text a run of like events holds. size: bytes of the run; first: of its first event."""
        self.stream.thoughts = self.stream.thoughts or form.thoughts
        self.stream.add_text(max(0, size - events * form.bare), max(1, first - form.bare))


def _are_alike(joined: bytes, form: EventForm, events: int, lines: int) -> bool:
    """Whether bytes that end like an event of the form are this many of them, none without text."""
    return (
        lines == 2 * events
        and joined.startswith(form.head)
        and joined.count(b"\n" + form.head) == events - 1
        and joined.count(b'"') == form.quotes * events
        and joined.count(b'""') == form.empty * events
        and b"\\" not in joined
        and _is_utf8(joined)
    )


def read(
    body: bytes, stream_format: StreamFormat, *, complete: bool, memory: FormMemory | None = None, fast: bool = True
) -> Stream:
    """All events of a whole body."""
    reading = StreamReading(stream_format, memory, fast=fast)
    reading.feed([body])
    return reading.end(complete=complete)


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def event_end(body: bytes, at: int, only_lf: bool) -> tuple[int, int]:
    """Where the event that starts at `at` ends and where the next one starts; (-1, 0) where it does not end."""
    if only_lf:
        start = body.find(b"\n\n", at)
        return start, start + 2
    match = _EVENT_END.search(body, at)
    return match.span() if match else (-1, 0)


def _take_event(stream: Stream, stream_format: StreamFormat, part: bytes, end: int) -> bool:
    """Reads one event as JSON; whether it was a token's event like any other."""
    data, name = event_fields(part, stream)
    if data is None:
        return False
    if data.strip() == b"[DONE]":
        stream.done = True
        return False
    payload = json_object(data)
    if payload is None:
        stream.broken_json = stream.broken_json or not stream.done
        return False
    event = stream_format.on_event(stream, payload, name)
    if event is None:
        return False
    stream.ends.append(end)
    stream.kinds.append(event.kind)
    stream.counts.append(event.tokens)
    if event.size:
        stream.add_text(event.size, event.size)
    return event.plain


def _take_rest(stream: Stream, stream_format: StreamFormat, rest: bytes, end: int) -> None:
    """The event behind which the body ended without a blank line; half an event means that the stream was cut."""
    scratch = Stream()
    data, _ = event_fields(rest, scratch)
    if data is not None and data.strip() != b"[DONE]" and json_object(data) is None:
        stream.cut = True
        return
    _take_event(stream, stream_format, rest, end)


def event_fields(part: bytes, stream: Stream) -> tuple[bytes | None, str | None]:
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


def _form(part: bytes, blank: bytes, stream_format: StreamFormat, told: int | None) -> EventForm | None:
    """The form of all events that are like this one but for the values of the open keys. told: the tokens so far, by
    this event; None where it does not say.
    """
    if blank not in (b"\n\n", b"\r\n\r\n") or not part.startswith(b"data:") or b"\n" in part or b"\r" in part:
        return None
    counts = () if told is None else stream_format.count_keys
    found = None if told is None else _count_in(part, counts, told)
    if told is not None and found is None:
        return None
    pattern, literals, at, text, thoughts = [], [], 0, 0, False
    for member in _MEMBER.finditer(part, 5):
        group = "text" if member["text"] else "number" if member["number"] else None
        key = member["key"]
        if group is None or (key not in stream_format.open_keys and key not in counts):
            continue
        start, end = member.span(group)
        literals.append(part[at:start])
        whole = key in counts and key.endswith((b"tokens", b"_n"))  # another number would be no count
        pattern += [re.escape(part[at:start]), _SOME_TEXT if group == "text" else _WHOLE if whole else _NUMBER]
        at = end
        if group == "text" and key != b"id":
            text, thoughts = text + end - start, thoughts or key.startswith(b"reasoning")
    pattern += [re.escape(part[at:]), blank]
    literals.append(part[at:] + blank)
    return EventForm(
        _compile(b"".join(pattern)),
        head=literals[0],
        tail=literals[-1],
        quotes=sum(each.count(b'"') for each in literals),
        empty=sum(each.count(b'""') for each in literals),
        countable=len(literals) > 1 and blank == b"\n\n" and b"\\" not in part and found is None,
        bare=len(part) + len(blank) - text,
        thoughts=thoughts,
        count=found,
    )


def _count_in(part: bytes, keys: Sequence[bytes], told: int) -> re.Pattern[bytes] | None:
    """Finds the count of tokens so far in an event that told this one; None where that is not plain to see."""
    for key in keys[:2]:
        pattern = _compile_count(key)
        if found := pattern.findall(part):
            return pattern if found == [b"%d" % told] else None
    return None


@lru_cache
def _compile_count(key: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'"' + key + rb'"\s*:\s*(\d+)(?=\s*[,}])')


@lru_cache(maxsize=64)
def _compile(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(b"(?:" + pattern + b")*")


def to_answer(stream: Stream, sizes: Sequence[int], *, complete: bool) -> Answer:
    """The stream in terms of the slices that it arrived in, with the judgement on how it ended.

    sizes: where in the body each slice ends.
    """
    slice_of_event = _slices_of(stream.ends, sizes)
    return Answer(
        slice_of_event=slice_of_event,
        token_count=stream.counts,
        first_content=stream.kinds.index(EventKind.CONTENT) if EventKind.CONTENT in stream.kinds else None,
        input_tokens=stream.input_tokens,
        output_tokens=stream.output_tokens,
        finish_reason=stream.finish_reason,
        error_kind=_judge(stream, complete),
        error_message=stream.error_message,
        glued_events=len(slice_of_event) - len(set(slice_of_event)),
        count_told=stream.count_told,
        first_share=stream.first_share,
    )


def _slices_of(ends: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """For each event the slice that holds its last byte. Most events end where a slice does."""
    index = dict(zip(reversed(sizes), range(len(sizes) - 1, -1, -1)))  # of slices that end alike the first: not empty
    found = list(map(index.get, ends))
    return [bisect_left(sizes, end) if at is None else at for at, end in zip(found, ends)]


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
    return None if stream.ends or stream.output_tokens else "empty"
