"""Command lines of engines: flags by release, our limits as flags, and the user's own arguments.

Pure: words in, words out. An engine's folder holds the table of its flags; what is done with one is the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import EVER, Version, parse_version, version_text
from harness.errors import UsageError

Value = str | int | float | bool | Sequence[str] | None


@dataclass(frozen=True)
class Flag:
    """One flag, by its first spelling. also: other spellings. since, until: the first and the last release that was
    seen to have it.
    """

    also: tuple[str, ...] = ()
    since: Version = EVER
    until: Version | None = None


@dataclass(frozen=True)
class Flags:
    """The flags of one engine. known: by their first spelling, dashes included. releases: that were read, in order; in
    one between two of them a flag counts as known where either has it. instead: by flag, what to take where a release
    does not have it.

    like_argparse: as Python's argparse reads them: a unique beginning of a long flag means it, `--flag=value` is
    `--flag value`, and `--no-flag` is the same flag's other way. flexible: `--max_model_len` is `--max-model-len`, and
    `--config.key` is a part of `--config`.
    """

    title: str
    known: Mapping[str, Flag]
    releases: Sequence[Version] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    like_argparse: bool = True
    flexible: bool = False

    def known_in(self, flag: str, version: Version) -> bool:
        """Whether a release has a flag, as far as can be told from those that were read."""
        entry = self.known[flag]
        older = max((each for each in self.releases if each <= version), default=version)
        newer = min((each for each in self.releases if each >= version), default=version)
        return entry.since <= newer and (entry.until is None or older <= entry.until)

    def flag_of(self, word: str) -> str | None:
        """The first spelling of the flag that this word of a command line is; None for a value or an unknown flag."""
        if not is_flag(word):
            return None
        name = word.partition("=")[0] if self.like_argparse else word
        if self.flexible:
            name = name.replace("_", "-").partition(".")[0]
        if name in self._spellings:
            return self._spellings[name]
        if not self.like_argparse or not name.startswith("--"):
            return None
        if name.startswith("--no-"):
            return self._spellings.get("--" + name.removeprefix("--no-"))
        meant = {first for spelling, first in self._spellings.items() if spelling.startswith(name)}
        return meant.pop() if len(meant) == 1 else None

    @cached_property
    def _spellings(self) -> Mapping[str, str]:
        return {spelling: first for first, flag in self.known.items() for spelling in (first, *flag.also)}

    def given(self, words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        """Each known flag of a command line, by its first spelling, with its value; None where a flag follows it."""
        for place, word in enumerate(words):
            flag = self.flag_of(word)
            if flag is None:
                continue
            if self.like_argparse and "=" in word:
                yield flag, word.partition("=")[2]
            else:
                after = words[place + 1] if place + 1 < len(words) else None
                yield flag, None if after is None or is_flag(after) else after

    def value(self, words: Sequence[str], flag: str) -> str | None:
        """What a command line gives a flag, the last of them where it is there twice; None where it is not there."""
        return next((value for name, value in reversed(list(self.given(words))) if name == flag), None)

    def without(self, words: Sequence[str], flags: Sequence[str]) -> tuple[str, ...]:
        """The words but for these flags and the values that follow them."""
        kept: list[str] = []
        dropping = False
        for word in words:
            if is_flag(word):
                dropping = self.flag_of(word) in flags
            if not dropping:
                kept.append(word)
        return tuple(kept)


def changed(own: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
    """An entry's variables, empty ones too, with others over them; an empty value of `changes` takes one away."""
    over = changes or {}
    return {name: value for name, value in {**own, **over}.items() if over.get(name) != ""}


def is_flag(word: str) -> bool:
    """Whether a word of a command line is a flag: it begins with a dash and is not a negative number."""
    return word.startswith("-") and word != "-" and not re.fullmatch(r"-\d[\d.e+-]*", word)


def words(options: Mapping[str, Value]) -> tuple[str, ...]:
    """`{"--max-model-len": 8192, "--trust-remote-code": True}` -> words in this order.

    None and False leave one out, True is a flag without a value, several values follow one flag.
    """
    spelled: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        spelled.append(name)
        if isinstance(value, (str, int, float)):
            spelled += [] if value is True else [as_text(value)]
        else:
            spelled += value
    return tuple(spelled)


def as_text(value: str | int | float) -> str:
    """`0.9` for 0.90, `8192` for 8192."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- the words of an entry's `args`


@dataclass(frozen=True)
class ReservedFlags:
    """What an entry's own arguments must not say. keys: flag -> the key of the entry that sets it in this start.

    places: flag -> why it is not the entry's to set. secrets: flag -> how the secret gets there instead.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


def require_own(
    args: Sequence[str], flags: Flags, version: Version, taken: ReservedFlags, where: str
) -> tuple[str, ...]:
    """The entry's own arguments, unchanged. where: the entry.

    Raises UsageError for one that a key of the entry sets already, one that the harness itself sets, a secret, and a
    flag that this release does not have. Flags that the table does not know are left to the engine.
    """
    for flag, _ in flags.given(args):
        if flag in taken.keys:
            raise UsageError(
                f"engine/args has {flag}, which `{taken.keys[flag]}` sets already",
                where=where,
                advice="Keep one of them.",
            )
        if flag in taken.places:
            raise UsageError(f"engine/args has {flag}", where=where, advice=taken.places[flag])
        if flag in taken.secrets:
            raise UsageError(
                f"{flag} would put a secret on a command line, which everybody on the machine can read",
                where=where,
                advice=taken.secrets[flag],
            )
        require_known(flag, flags, version, where)
    return tuple(args)


def require_known(flag: str, flags: Flags, version: Version, where: str | None = None) -> str:
    """The flag again. Raises UsageError where this release does not have it."""
    if flags.known_in(flag, version):
        return flag
    entry = flags.known[flag]
    if entry.until is not None and version > entry.until:
        bound = f"{version_text(entry.until)} was the last that has it"
    else:
        bound = f"{version_text(entry.since)} has it"
    raise UsageError(
        f"{flags.title} {version_text(version)} has no option {flag}: {bound}",
        where=where,
        advice=flags.instead.get(flag, "Take it out, or take another engine version."),
    )


# ---- limits


def limit_flags(
    limits: Limits, names: Mapping[str, str], lacking: Mapping[str, str], title: str, where: str | None = None
) -> dict[str, str]:
    """The limits that are set, as the engine's own flags with their values.

    names: of ours -> flag. lacking: of ours -> the nearest that the engine has, as advice. Raises UsageError for a
    limit that the engine does not have.
    """
    spelled: dict[str, str] = {}
    for name, value in limits.known().items():
        if name not in names:
            raise UsageError(f"{title} has no limit such as {name}", where=where, advice=lacking[name])
        spelled[names[name]] = as_text(value)
    return spelled


# ---- an entry's `quantize` and `kv_cache_dtype`

Quantizations = Mapping[str, tuple[Version, Version | None, str]]
"""By word of `quantize`: the first and the last release that has it, and what the checkpoint stores."""


def loaded_quantization(
    model: Model, version: Version, known: Quantizations, of_checkpoint: Collection[str], title: str
) -> str | None:
    """The entry's `quantize` where the engine has to be told. of_checkpoint: what it finds in the checkpoint by itself.

    Raises UsageError where this release cannot load it.
    """
    word = model.quantize
    if word is None or word in of_checkpoint:
        return None
    since, until, _ = known.get(word, (EVER, None, word))
    if since > version or (until is not None and version > until):
        loads = sorted(name for name, (first, last, _) in known.items() if first <= version <= (last or version))
        raise UsageError(
            f"{title} {version_text(version)} cannot load quantize: {word}",
            where=model.name,
            advice=f"This release knows {', '.join(loads)}.",
        )
    return word


def known_kv_cache(model: Model, version: Version, known: Mapping[str, Version], title: str) -> str | None:
    """The entry's `kv_cache_dtype`. known: the first release of each. Raises UsageError for one of a later release."""
    word = model.kv_cache_dtype
    if word is not None and known.get(word, EVER) > version:
        raise UsageError(
            f"{title} {version_text(version)} has no KV cache of {word}",
            where=model.name,
            advice=f"Take one of {', '.join(name for name, since in known.items() if since <= version)}.",
        )
    return word


# ---- tables and releases


def read_flags(text: str, title: str, instead: Mapping[str, str], **reading: bool) -> Flags:
    """From its text: `releases 0.1.0 0.2.0`, then a line per flag: `--flag,-f [since [until]]`; `-` means all."""
    known: dict[str, Flag] = {}
    releases: list[Version] = []
    for line in text.splitlines():
        if line.startswith("releases "):
            releases = [_release(word) for word in line.split()[1:]]
        elif line and not line.startswith("#"):
            names, since, until = (*line.split(), "-", "-")[:3]
            first, *also = names.split(",")
            last = None if until == "-" else _release(until)
            known[first] = Flag(tuple(also), EVER if since == "-" else _release(since), last)
    return Flags(title, known, tuple(releases), instead, **reading)


def _release(text: str) -> Version:
    version = parse_version(text)
    assert version is not None, text
    return version


def release(text: str, newest: Version, title: str) -> Version:
    """`0.32.0`, `v0.32.0`, `latest` -> three numbers. Raises UsageError."""
    version = newest if text in ("latest", "") else parse_version(text)
    if version is None:
        raise UsageError(f"no version of {title}: {text!r}", advice=f"Expected one such as {version_text(newest)}.")
    return version
