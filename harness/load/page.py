"""Locust's own web page in a load process, on 127.0.0.1, with the statistics of all load processes of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from locust.stats import StatsEntry, StatsError


class Page:
    """Serves the page of this process's environment. url: where."""

    def __init__(self, environment: Any, stopped: Callable[[], None]) -> None:
        """stopped: is called when somebody ends the test on the page."""
        self._environment = environment
        self._page = environment.create_web_ui("127.0.0.1", 0, stats_csv_writer=None, delayed_start=True)
        environment.events.test_stop.add_listener(lambda **_: stopped())
        self._page.start()
        while not getattr(getattr(self._page, "server", None), "started", False):
            gevent.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._page.server.server_port}"

    @staticmethod
    def report(environment: Any) -> dict[str, Any]:
        """What a process without a page counted since the last time."""
        stats = environment.stats
        report = {
            "stats": stats.serialize_stats(),
            "total": stats.total.get_stripped_report(),
            "errors": stats.serialize_errors(),
        }
        stats.errors.clear()
        return report

    def add(self, report: dict[str, Any]) -> None:
        """Count what another process counted, as Locust's master does with what its workers send."""
        stats = self._environment.stats
        for entry in report["stats"]:
            found = _entry(entry, stats)
            stats.get(found.name, found.method).extend(found)
        for key, error in report["errors"].items():
            if key in stats.errors:
                stats.errors[key].occurrences += error["occurrences"]
            else:
                stats.errors[key] = StatsError.unserialize(error)
        stats.total.extend(_entry(report["total"], stats))


def _entry(told: dict[str, Any], stats: Any) -> StatsEntry:
    """An entry that came as JSON, which makes texts of numbers that are keys."""
    for name in ("response_times", "num_reqs_per_sec", "num_fail_per_sec"):
        told[name] = {int(key): value for key, value in told[name].items()}
    return StatsEntry.unserialize(told, stats)  # type: ignore[arg-type]
