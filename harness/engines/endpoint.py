"""Endpoint: where a service answers, and its API key."""

from __future__ import annotations

from dataclasses import dataclass


class Secret:
    """A value that never shows itself: `str` and `repr` give `[REDACTED]`, `reveal()` the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "[REDACTED]"

    __str__ = __repr__


@dataclass(frozen=True)
class Endpoint:
    """Where a running service answers. url: scheme, host and port, without a trailing slash. model_name: by which the
    model is asked for; None where it is not known yet.
    """

    url: str
    api_key: Secret | None = None
    model_name: str | None = None
