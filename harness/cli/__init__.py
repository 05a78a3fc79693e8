"""The command line: parse, make one call, print, exit code. No decisions.

One module per family of commands; `options.py` has what they share. Each command imports its stage when it is called,
so that `harness --help` stays quick.
"""

from harness.cli import services, models, measuring, judging  # noqa: F401, I001  # each registers; help has their order
from harness.cli.outcome import run

__all__ = ["run"]
