"""Parses and prints release numbers, for every engine."""

from __future__ import annotations

import re

Version = tuple[int, int, int]
EVER: Version = (0, 0, 0)
NEWEST_OF_LINE = 99  # for a part that was left out: `3.3` is the newest 3.3.x

_RELEASE = re.compile(r"[vb]?(\d+)(?:\.(\d+))?(?:\.(\d+)(?:\.\d+)?)?(?:[-+].*|\.?(?:rc|a|b|post|dev)\d*.*)?")


def parse_version(text: str) -> Version | None:
    """`3.3.7`, `v2.0`, `3.3.6-dev0`, `0.32.0rc1`, `b6710` -> three numbers; a missing part counts as the newest of its
    line, a fourth is left out.

    None for a text that is not a release number.
    """
    match = _RELEASE.fullmatch(text.strip())
    if match is None:
        return None
    major, minor, patch = (NEWEST_OF_LINE if part is None else int(part) for part in match.groups())
    return major, minor, patch


def version_text(version: Version) -> str:
    """`(3, 3, 99)` -> `3.3`."""
    return ".".join(str(part) for part in version if part != NEWEST_OF_LINE)
