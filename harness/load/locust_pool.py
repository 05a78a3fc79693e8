"""The load processes that Locust's own command started: its workers or its only process, over Locust's connections."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gevent.queue import Empty, Queue

from harness.errors import UsageError
from harness.load import messages
from harness.load.plan import LoadPlan
from harness.load.pool import Pool
from harness.measure.run_folder import RunFolder

_LOCAL = "local"  # how Locust calls its only process
_LEVEL_ORDERS = ("prepare", "begin")


class LocustPool(Pool):
    """Processes that are connected when a run begins share its request numbers; one that connects later is told what
    runs, and has numbers of its own. The answers of a level that was ended from here are awaited.
    """

    start_after, patience = 0.05, 0.1

    def __init__(self, runner: Any) -> None:
        super().__init__()
        self._runner = runner
        self._numbers: dict[str, int] = {}  # by Locust's id
        self._closed: set[int] = set()
        self.elsewhere: set[int] = set()  # on other machines, or in other file systems: they hand in their journals
        self._refused: list[UsageError] = []  # by workers whose environment does not let them ask
        self._said: Queue[dict[str, Any]] = Queue()
        self._last: dict[str, dict[str, Any]] = {}  # orders of the present level, for who comes later
        runner.register_message(messages.REPORT, self._on_report)

    @property
    def there(self) -> list[str]:
        """Who could take a plan now, in the order in which Locust gives them users."""
        clients = getattr(self._runner, "clients", None)
        return [_LOCAL] if clients is None else sorted(each.id for each in clients.all if each.state != "missing")

    @property
    def processes(self) -> int:
        """Those that took part."""
        return len(self._numbers)

    def take(self, plan: LoadPlan) -> None:
        """As many as are there now must be its processes."""
        self._plan, self.lost, self.last_report, self.streams = plan, [], {}, 0
        self._numbers, self._closed, self._refused, self._last, self._said = {}, set(), [], {}, Queue()
        self.elsewhere = set()
        for client in self.there:
            self._give_plan(client)

    def leave(self) -> None:
        """The run is over: whoever comes now is told nothing."""
        self._plan = None

    def join(self, client: str) -> None:
        """A process that came later."""
        if self._plan is not None and client not in self._numbers:
            self._give_plan(client)
            for what in _LEVEL_ORDERS:
                if what in self._last:
                    self._send(client, self._last[what])

    def _give_plan(self, client: str) -> None:
        assert self._plan is not None
        self._numbers[client] = number = len(self._numbers)
        plan = {"do": "plan", "plan": self._plan.as_dict(), "process": number, "machine": messages.machine()}
        self._send(client, plan)

    def alive(self) -> list[int]:
        return [number for number in self._numbers.values() if str(number) not in self.lost]

    def order(self, only: int | None = None, **what: Any) -> None:
        if what["do"] in _LEVEL_ORDERS:
            self._last[what["do"]] = what
        if what["do"] == "prepare":
            self._last.pop("begin", None)
        for client, number in self._numbers.items():
            if only in (None, number):
                self._send(client, what)

    def _send(self, client: str, what: dict[str, Any]) -> None:
        self._runner.send_message(messages.ORDER, what, client_id=client)

    def next(self, timeout: float) -> dict[str, Any] | None:
        there = self.there
        for client, number in self._numbers.items():
            if client not in there and number not in self._closed:
                self.dismiss(number)
        try:
            return self._said.get(timeout=timeout)
        except Empty:
            return None

    def dismiss(self, number: int) -> None:
        if str(number) not in self.lost:
            self.lost.append(str(number))

    def require_someone(self) -> None:
        """Raises ClientFailed when no process is left, UsageError where one of them said that it cannot take part."""
        if not self.alive() and self._refused:
            raise self._refused[0]
        super().require_someone()

    def last_words(self) -> str:
        return "Locust's workers are away"

    def stop(self, reason: str) -> None:
        self.reason = reason
        self.order(do="end", reason=reason)
        if reason not in ("duration", "stopped", "interrupted", messages.USERS_CHANGED):
            self.order(do="abandon")

    def await_closed(self, until: float) -> None:
        """Until every journal is whole; whose is not by then (CLOCK_MONOTONIC), or away, is lost."""
        while self._open() and time.monotonic() < until:
            self.next(timeout=0.02)
        for number in self._open():
            self.dismiss(number)
        self.lost.sort()

    def _open(self) -> Iterable[int]:
        return set(self.alive()) - self._closed

    def _on_report(self, environment: Any, msg: Any, **_: Any) -> None:
        said = msg.data
        if said["say"] == "ask_time":
            self._send(msg.node_id, {"do": "time", "at": time.monotonic()})
            return
        number = self._numbers.get(msg.node_id)
        if self._plan is None or number is None:
            return
        self.last_report[number] = time.monotonic()
        if said["say"] == "journal":
            self.elsewhere.add(number)
            with RunFolder(Path(self._plan.folder)).journal(number).open("ab") as file:
                file.write(said["content"])
            return
        if said["say"] == "refused":
            where = f"worker {msg.node_id}: {said['where']}" if said["where"] else f"worker {msg.node_id}"
            self._refused.append(UsageError(said["found"], where=where, advice=said["advice"]))
        if said["say"] == "closed":
            self._closed.add(number)
        self._said.put({**said, "process": number})
