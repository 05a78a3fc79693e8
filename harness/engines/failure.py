"""Why an engine did not start or died: from its log lines to a named cause and what to change.

Each engine has a list of causes of its own, in which the common ones (causes.py) are put. The first cause in the list
that is found in the log is the answer, so the specific ones come before the general ones, and causes before their
consequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

FailureKind = Literal["memory", "limits", "entry", "machine", "download", "crash", "unknown"]


@dataclass(frozen=True)
class Failure:
    """A failed start, or a death while serving.

    cause: a name of CAUSES, or `unknown`. kind: memory (less of something may fix it), limits (limits that
    contradict each other or the budget), entry (the model's entry is wrong), machine (this machine lacks something),
    download, crash, unknown. found: what happened, in one sentence. advice: what to change, with a value. exit_code:
    2, 3 or 4 as the command ends with. worth_a_retry: whether the same start may succeed a second time. line: the
    line of the log that showed it. engine_exit_code: of the process or container; None where nobody can tell.
    last_lines: end of the log.
    """

    cause: str
    kind: FailureKind
    found: str
    advice: str | None
    exit_code: int
    worth_a_retry: bool = False
    line: str | None = None
    engine_exit_code: int | None = None
    last_lines: tuple[str, ...] = ()


Text = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Cause:
    """One named cause. pattern: searched in the log as a whole. found, advice: may use groups of the pattern."""

    name: str
    kind: FailureKind
    pattern: str
    found: Text
    advice: Text
    exit_code: int = 4
    worth_a_retry: bool = False


Sharpen = Callable[[Cause, str, bool], Cause]
"""A cause, the whole log, whether the engine had been serving -> the cause as it is meant at that moment."""


def explain_by(
    causes: Sequence[Cause],
    lines: Sequence[str],
    engine_exit_code: int | None = None,
    *,
    memory_limit_hit: bool = False,
    serving: bool = False,
    sharpen: Sharpen = lambda cause, text, serving: cause,
    tail: Sequence[str] | None = None,
) -> Failure:
    """The named cause of a failure. memory_limit_hit: the container's own memory limit ended it. serving: it had been
    ready. tail: the last lines to show, where not simply those that are not empty.
    """
    text = "\n".join(_unwrapped(lines))
    last = tuple(tail if tail is not None else [line for line in lines if line.strip()])[-15:]
    if memory_limit_hit:
        return _with_end(_CONTAINER_MEMORY, None, engine_exit_code, last)
    for cause in causes:
        match = re.search(cause.pattern, text)
        if match is not None:
            return _with_end(sharpen(cause, text, serving), match, engine_exit_code, last)
    if engine_exit_code == 137:
        return _with_end(_KILLED, None, engine_exit_code, last)
    return _with_end(_UNKNOWN, None, engine_exit_code, last)


_WIDTH = 80  # columns at which Python's pretty tracebacks are broken where there is no terminal
_RECORD = re.compile(r"\d{4}-\d\d-\d\dT|[\u2500-\u257f]|[Ee]rror:|ERROR|WARN|INFO|Traceback|\(\w+ pid=|\[20\d\d-|$")


def _unwrapped(lines: Sequence[str]) -> Iterator[str]:
    """The lines as they were before a word that did not fit was put on the next one."""
    parts: list[str] = []
    for line in "\n".join(lines).split("\n"):
        word = line.partition(" ")[0]
        broken = parts and len(parts[-1]) <= _WIDTH < len(parts[-1]) + 1 + len(word)
        if parts and not (broken and not _RECORD.match(line)):
            yield " ".join(parts)
            parts = []
        parts.append(line.rstrip())
    yield " ".join(parts)


_CONTAINER_MEMORY = Cause(
    "container-memory",
    "memory",
    "",
    "the container ran into its own memory limit",
    "Raise mem_limit in compose/service.yaml, or take it out.",
)
_KILLED = Cause(
    "killed",
    "memory",
    "",
    "the engine was killed (signal 9), most likely for want of main memory",
    "Look into `dmesg` for the kernel's word, and give it more memory than the weights' size.",
    worth_a_retry=True,
)
_UNKNOWN = Cause(
    "unknown",
    "unknown",
    "",
    "the engine ended for a reason that its log does not name",
    "See the last lines of its log.",
    worth_a_retry=True,
)


def _with_end(
    cause: Cause, match: re.Match[str] | None, engine_exit_code: int | None, tail: tuple[str, ...]
) -> Failure:
    return Failure(
        cause=cause.name,
        kind=cause.kind,
        found=_filled(cause.found, match),
        advice=_filled(cause.advice, match),
        exit_code=cause.exit_code,
        worth_a_retry=cause.worth_a_retry,
        line=_line_around(match),
        engine_exit_code=engine_exit_code,
        last_lines=tail,
    )


def _filled(text: Text, match: re.Match[str] | None) -> str:
    if isinstance(text, str):
        return text
    assert match is not None
    return text(match)


def _line_around(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    text = match.string
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.start())
    return text[start : end if end >= 0 else len(text)].strip()


def round_down(value: int) -> int:
    """To about four binary digits, as a value that somebody types: 5,000 -> 4,608."""
    step = 1 << max(0, value.bit_length() - 4)
    return max(1, value // step * step)


def memory_wanted(text: str) -> str:
    """The two numbers of PyTorch's message, and who else has the memory: `, 20.00 MiB wanted and 4.12 MiB free`."""
    size = r"([\d.]+ (?:[KMG]i?B|bytes))"
    wanted = re.search(rf"Tried to allocate {size}[^\n]*?{size} (?:is )?free", text)
    other = re.search(rf"Process \d+ has {size} memory in use", text)
    numbers = f", {wanted[1]} wanted and {wanted[2]} free" if wanted else ""
    return numbers + (f", another process has {other[1]}" if other else "")
