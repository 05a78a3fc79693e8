"""Log lines in every form that TGI writes them."""

from __future__ import annotations

import json

import pytest

from harness.stack.log_text import plain_line


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("\x1b[2m2026\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mx\x1b[0m: text\r\n", "2026  INFO x: text"),
        ("10%\r 50%\r100% done", "100% done"),
        ("\x1b]0;title\x07text", "text"),
        ("Args {", "Args {"),
        ("{not json}", "{not json}"),
        ('{"a": 1}', '{"a": 1}'),
        ("[1]", "[1]"),
    ],
)
def test_line_is_plain(raw: str, plain: str) -> None:
    """Colours, titles and progress bars go; what is no log record stays."""
    assert plain_line(raw) == plain


def test_launcher_record() -> None:
    """With --json-output the launcher's text is under `fields`, and fields beside it follow."""
    record = {
        "timestamp": "2026",
        "level": "INFO",
        "fields": {"message": "Shard ready in 1s", "rank": 0},
        "target": "text_generation_launcher",
    }
    assert plain_line(json.dumps(record)) == "2026 INFO text_generation_launcher: Shard ready in 1s rank=0"


def test_router_record() -> None:
    """The router's is flat."""
    record = {
        "timestamp": "2026",
        "level": "WARN",
        "message": "x",
        "target": "text_generation_router",
        "line_number": 3,
    }
    assert plain_line(json.dumps(record)) == "2026 WARN text_generation_router: x"
