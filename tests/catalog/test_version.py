"""Release numbers of all engines."""

from __future__ import annotations

import pytest

from harness.catalog.version import Version, parse_version, version_text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.3.7", (3, 3, 7)),
        ("v0.32.0", (0, 32, 0)),
        ("3.3.6-dev0", (3, 3, 6)),
        ("0.32.0rc1", (0, 32, 0)),
        ("0.4.6.post5", (0, 4, 6)),
        ("0.10.1.1", (0, 10, 1)),  # vLLM mended 0.10.1 so
        ("0.5.19-cu129", (0, 5, 19)),
        ("b6710", (6710, 99, 99)),
        ("2.4", (2, 4, 99)),
        ("nightly", None),
        ("1.2.3.4.5", None),
        ("", None),
    ],
)
def test_releases_are_read(text: str, version: Version | None) -> None:
    """Tags, pre-releases, builds and parts that are left out; what is no number is none."""
    assert parse_version(text) == version


def test_parts_that_were_left_out_are_not_shown() -> None:
    """A line of releases is written as it was asked for."""
    assert version_text((2, 4, 99)) == "2.4"
