"""The client's own error on this machine, for a run under Locust's own command, after its load.

`harness calibrate` measures and remembers it, in a process of its own: here the users of this load are still running.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from harness.errors import UsageError
from harness.input_files import as_type
from harness.measure.client import Floor

logger = logging.getLogger("harness")

_WITHIN = 90.0  # seconds; a few on a machine at rest, and up to three tries


def floor_of(streams: int, processes: int) -> Floor | None:
    """The floor that covers this many streams in this many processes, measured now where none is stored yet; None where
    that failed, which is said: the run holds without it. What the measuring says of itself goes to stderr.
    """
    asked = ["--users", str(streams), "--processes", str(processes), "--missing", "--json"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "calibrate", *asked],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=_WITHIN,
        )  # fmt: skip
        (floor,) = as_type(tuple[Floor, ...], json.loads(done.stdout)["floors"], "harness calibrate")
    except subprocess.TimeoutExpired:
        logger.warning("the client could not be calibrated within %.0f s: harness calibrate does it alone", _WITHIN)
        return None
    except (ValueError, KeyError, UsageError):
        logger.warning("the client could not be calibrated: harness calibrate, exit code %d", done.returncode)
        return None
    return floor
