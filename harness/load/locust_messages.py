"""What the processes of a Locust run tell each other, over Locust's own connections.

The keeper (Locust's master, or its only process) sends RUN, LEVEL, END and TIME; the members (processes with users)
send JOINED, JOURNAL, DONE and ASK_TIME. In a run of one process the same messages go from hand to hand.
"""

from __future__ import annotations

import time
from pathlib import Path

RUN = "harness_run"  # the plan, and how to know whether the keeper's clock and folder are there too
JOINED = "harness_joined"  # this process takes part
LEVEL = "harness_level"  # requests belong to this level from now on
END = "harness_end"  # send no more, wait for the answers, hand in the journal
JOURNAL = "harness_journal"  # the next bytes of a journal that lies on another machine
DONE = "harness_done"  # the journal is whole
ASK_TIME = "harness_ask_time"
TIME = "harness_time"


def machine() -> tuple[str, float]:
    """Which kernel runs here, and UTC minus CLOCK_MONOTONIC: processes with the same of both share one clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), time.time() - time.monotonic()


def same_clock(ours: tuple[str, float], theirs: tuple[str, float]) -> bool:
    """Two containers of one kernel share its clock unless one has a time namespace, which shows in the difference."""
    return ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < 1.0
