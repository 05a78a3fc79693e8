"""The user class for locustfiles. `harness bench --workload FILE` runs them, and so does Locust by hand:

    locust -f locustfiles/chat.py --host http://127.0.0.1:8080            # Locust's page
    locust -f locustfiles/chat.py --host ... --headless -u 16 -r 4 -t 2m  # none; --processes 4, --master, --worker too

Every request is recorded in the same way. By hand the run's folder is what HARNESS_OUTPUT names, else a new one in
reports/; `harness report FOLDER` makes the report.
"""

from __future__ import annotations

from typing import Any

import gevent
from locust import events

from harness.load import locust_listen  # noqa: F401 - sets where Locust listens
from harness.load.stream_user import StreamUser, stream_users

__all__ = ["StreamUser"]


@events.init.add_listener
def join(environment: Any, runner: Any, **_: Any) -> None:
    """Under Locust's own command: take the part in a run that this process has. It runs the levels, asks in them, or
    both.
    """
    # Here, since `harness bench` imports this file in each of its load processes and needs neither there.
    from harness.load.locust_join import JoinedWorker
    from harness.load.locust_run import LocustRuns

    kind = type(runner).__name__
    if kind != "WorkerRunner":
        LocustRuns(environment, runner, stream_users)
    if kind != "MasterRunner":
        JoinedWorker(environment, runner)
    # gevent counts from the time at which its loop last ran, which was before everything here was imported: on a slow
    # machine a short -t was over before the first user came.
    gevent.get_hub().loop.update_now()
