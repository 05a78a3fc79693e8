"""Types of the tables in `engines/<name>/coming_from.py`: what a setting of one engine becomes on another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Words = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True)
class Counterpart:
    """What one setting becomes, for its value. note: what to know, or what to do instead where it becomes nothing.

    args: arguments of the new engine. env: environment variables. keys: keys of an entry in models.yaml, by path
    (`limits/max_batch_size`); a value of None takes a key away. All None: there is no counterpart.
    """

    note: str = ""
    args: Words | None = None
    env: Callable[[str], Mapping[str, str]] | None = None
    keys: Callable[[str], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Guide:
    """How an entry of one engine is said to another. settings: by a key's path (`limits/max_input_tokens`) or a
    variable's name (`env/CUDA_GRAPHS`); a key that is not here keeps its place and value, a variable is taken away.

    habits: what the new engine does by default that the old one did not, most important first. routes: how its clients
    must change.
    """

    settings: Mapping[str, Counterpart] = field(default_factory=dict)
    habits: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


def flag(name: str, note: str = "") -> Counterpart:
    """The same value behind an argument's name."""
    return Counterpart(note, args=lambda value: (name, value))


def switch(name: str, note: str = "", *, off: str | None = None) -> Counterpart:
    """A truth value that becomes an argument without a value. off: the argument for `false`; None for none."""
    return Counterpart(note, args=lambda value: (name,) if is_true(value) else (off,) if off else ())


def dropped(note: str) -> Counterpart:
    """Nothing is needed in its place: the new engine does this by itself, or has no such thing to set."""
    return Counterpart(note, keys=lambda value: {})


def lost(instead: str) -> Counterpart:
    """The new engine cannot do this. instead: what to do."""
    return Counterpart(instead)


def is_true(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "on")
