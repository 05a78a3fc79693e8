"""Recognises secrets by their name or look, and takes them out of texts.

What is known as a secret, such as a value of an entry's `env` that is named like one, is also taken out in the middle
of another text: a command line, a server's message, a log line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

REDACTED = "[REDACTED]"

# The last letters of one of a name's words, such as HF_TOKEN, MY_APIKEY, DB_PASSWORD_FILE. `TOKENS` is none of them:
# limits of engines are counted in those.
NAMES = (
    "TOKEN", "SECRET", "SECRETS", "KEY", "KEYS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS",
)  # fmt: skip
_WORDS_ALONE = frozenset({"KEY", "KEYS"})  # ends of ordinary words, too
_ENDINGS = ("APIKEY", "ACCESSKEY", "AUTHKEY", "SECRETKEY", *(name for name in NAMES if name not in _WORDS_ALONE))

# By their own look: Hugging Face, OpenAI and those like it, GitHub, GitLab, AWS, Slack, Google, JSON web tokens,
# private keys, `Bearer` headers.
VALUES = (
    r"\bhf_[A-Za-z0-9]{6,}",
    r"\bsk-[A-Za-z0-9_-]{6,}",
    r"\b(?:gh[opusr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,})",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\bAIza[0-9A-Za-z_-]{30,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"(?i:\bbearer\s+)(?!\[REDACTED\])[A-Za-z0-9._~+/=-]{6,}",
)
_VALUE = re.compile("|".join(VALUES))
_URL_PASSWORD = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:?#]*):(?P<word>[^\s/@?#]+)@")
_SHORTEST = 6  # characters of a known secret that is looked for in other texts: `no` would be found everywhere

_known: set[str] = set()


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable holds a secret. Further names, `MY_*,OTHER`, are taken from HARNESS_SECRETS."""
    if any(fnmatchcase(name.upper(), pattern) for pattern in _further(os.environ.get("HARNESS_SECRETS", ""))):
        return True
    words = re.split(r"[^A-Z0-9]+", name.upper())
    if any(word in NAMES or word.endswith(_ENDINGS) for word in words):
        return True
    return value in _known or _VALUE.search(value) is not None or _URL_PASSWORD.search(value) is not None


def secrets_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that hold one; empty values hold none."""
    return {name: value for name, value in environment.items() if value and is_secret(name, value)}


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The same names; the value of whatever is a secret is `[REDACTED]`."""
    hidden = secrets_of(environment)
    return {name: REDACTED if name in hidden else redact(value) for name, value in environment.items()}


def arguments_without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line: values behind or within options that are named like a secret, and whatever looks like one."""
    shown: list[str] = []
    for word in arguments:
        before = shown[-1] if shown else ""
        option, equals, value = word.partition("=")
        if before.startswith("--") and "=" not in before and not word.startswith("-") and is_secret(before.strip("-")):
            shown.append(REDACTED)
        elif equals and value and option.startswith("-") and is_secret(option.strip("-")):
            shown.append(f"{option}={REDACTED}")
        else:
            shown.append(redact(word))
    return tuple(shown)


def remember_secret(value: str) -> None:
    """From now on it is taken out of every text, whatever it looks like."""
    if len(value) >= _SHORTEST:
        _known.add(value)
        _pattern.cache_clear()


def redact(text: str) -> str:
    """The text without what is known as a secret, looks like one, or is the password of a URL."""
    if (known := _pattern()) is not None:
        text = known.sub(REDACTED, text)
    if "://" in text:
        text = _URL_PASSWORD.sub(lambda found: f"{found['scheme']}{found['user']}:{REDACTED}@", text)
    return _VALUE.sub(REDACTED, text)


def redacted(document: Any) -> Any:
    """The same document with every text in it redacted; keys stay."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, Mapping):
        return {key: redacted(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return type(document)(redacted(value) for value in document)
    return document


@cache
def _pattern() -> re.Pattern[str] | None:
    """The longest first: one secret may begin another."""
    return re.compile("|".join(re.escape(each) for each in sorted(_known, key=len, reverse=True))) if _known else None


@cache
def _further(told: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in told.split(",") if part.strip())
