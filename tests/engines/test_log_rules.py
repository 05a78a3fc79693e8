"""Rules that lines of a log are held against."""

from __future__ import annotations

from harness.engines.base import StartLog
from harness.engines.log_rules import apply, each, number, phase, rules

TABLE = rules(
    (r"loading (\w+)", phase("loading", r"file \1")),
    (r"pool of ([\d,]+) tokens in ([\d,]+)", each(number("pool"), phase("warming up"))),
    (r"pool", phase("connected")),
)


def test_first_rule_acts() -> None:
    """A line is one rule's; details hold what the line says, and numbers lose their separators."""
    log = StartLog()
    apply(log, "now loading a", TABLE)
    assert (log.phase, log.detail) == ("loading", "file a")
    apply(log, "a pool of 123,456 tokens in 9", TABLE)
    assert (vars(log)["pool"], log.phase) == (123456, "warming up")
    apply(log, "nothing of concern", TABLE)
    assert log.phase == "warming up"
