"""The messages between whoever runs the levels and the load processes, in which the users ask.

There is one set of messages and two carriers: pipes to processes of our own (worker_pool.py, worker.py), and Locust's
own connections between its master and its workers (locust_pool.py, locust_join.py), which in a run of one process go
from hand to hand.

    order   plan      what the next levels are about; ends what was before
            prepare   a level: open connections, prepare requests
            begin     run that level from this moment on (run-relative seconds)
            end       send no more in this level; for USERS_CHANGED those that are there go on in the next one
            abandon   and do not wait for the answers either
            describe, rehearse   run a locustfile, and say what its users ask (pipes)
            stats     Locust's statistics of another process, for the page (pipes)
            time      how late it is where the levels are run (Locust)
    report  ready · prepared · tick, once a second · level_ended, after the last answer
            described · rehearsed · page: where Locust's page is · fault: a user's own code failed (pipes)
            journal: its next bytes, where the run's folder is on another machine (Locust)
            closed: all of the journal is written · ask_time (Locust)
            refused: what is wrong with a worker's environment, of which it ends (Locust)

An order is a mapping with `do`, a report one with `say`; all in them is JSON, but for a journal's bytes.
"""

from __future__ import annotations

import time
from pathlib import Path

ORDER, REPORT = "harness_order", "harness_report"  # how Locust calls them
USERS_CHANGED = "users_changed"  # why a level ends whose users go on in the next one


def machine() -> tuple[str, float]:
    """Which kernel runs here, and UTC minus CLOCK_MONOTONIC: processes with the same of both share one clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), time.time() - time.monotonic()


def same_clock(ours: tuple[str, float], theirs: tuple[str, float]) -> bool:
    """Two containers of one kernel share its clock unless one has a time namespace, which shows in the difference."""
    return ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < 1.0
