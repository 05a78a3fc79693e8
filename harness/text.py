"""Makes text of a server, a file or a path harmless for its reader: a terminal, Markdown, XML."""

from __future__ import annotations

import re

_ACTS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control codes but tab and line end
    r"\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"  # what turns text around or hides it
    r"\ud800-\udfff\ufffe\uffff]"  # what no file in UTF-8, and no XML, can hold
)


def visible(text: str) -> str:
    r"""The text with what a terminal would act on, and what is not a character, written as `\x1b`."""
    if _ACTS.search(text) is None:
        return text
    return _ACTS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """The same on one line."""
    return visible(" ".join(text.split()) if "\n" in text or "\r" in text else text)


_MARKUP = re.compile(
    r"[\\`*\[\]|~]"
    r"|<(?=[A-Za-z/!?])"  # a tag; `< 5 %` is none
    r"|&(?=#?\w+;)"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # not within a word such as ttft_p95
)
_BEGINS = re.compile(r"(?:[#>+=-]|\d+[.)])(?=\s|[>#=-]|$)")  # what makes a line a heading, a quotation, a list


_CODE = re.compile(r"(`[^`]+`)")


def markdown(text: str) -> str:
    """The text as Markdown shows it to the letter, on one line; what is in backticks is code, in which nothing acts
    but the bar of a table.
    """
    parts = _CODE.split(one_line(text))
    plain = [_MARKUP.sub(lambda found: f"\\{found[0]}", part) for part in parts[::2]]
    code = [part.replace("|", "\\|") for part in parts[1::2]]
    escaped = "".join(a + b for a, b in zip(plain, [*code, ""], strict=True))
    return f"\\{escaped}" if _BEGINS.match(escaped) and not escaped[0].isdigit() else escaped
