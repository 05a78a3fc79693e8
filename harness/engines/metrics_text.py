"""Reads single figures of a page in Prometheus' text format by searching for their lines, without parsing the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

_MOST = 1e18
_NUMBER = r"[-+0-9.eE]+|[-+]?Inf|NaN"
# Only where a name can begin: to try each letter of a long one would take time that grows with its square.
_LABEL = re.compile(r'(?<!\w)([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One line: its labels and its value."""

    labels: Mapping[str, str]
    value: float


def samples(page: str, name: str) -> Iterator[Sample]:
    """Every line of this name, whatever its labels."""
    for match in _line(name).finditer(page):
        labels = {key: re.sub(r'\\[\\"n]', lambda each: _ESCAPED[each[0]], text) for key, text in _labels(match[1])}
        with suppress(ValueError):  # letters of a number in an order that is none
            value = float(match[2])
            if abs(value) <= _MOST:  # else it tells nothing: not a number, or more than there can be of anything
                yield Sample(labels, value)


def total(page: str, *names: str) -> float | None:
    """The sum over all lines of the first of these names that is there, as where several engines answer as one; None
    where there is none of them.
    """
    for name in names:
        values = [sample.value for sample in samples(page, name)]
        if values:
            return sum(values)
    return None


def mean(page: str, *names: str) -> float | None:
    """The same for shares, of which engines that answer as one have a common mean."""
    for name in names:
        values = [sample.value for sample in samples(page, name)]
        if values:
            return sum(values) / len(values)
    return None


@lru_cache(maxsize=128)
def _line(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}(?:\{{(.*)\}})?[ \t]+({_NUMBER})(?:[ \t]+-?\d+)?[ \t]*$", re.MULTILINE)


def _labels(text: str | None) -> list[tuple[str, str]]:
    return [] if text is None else _LABEL.findall(text)
