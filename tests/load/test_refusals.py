"""The load processes against an address that takes no connection."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.load import runner
from harness.load.plan import LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.arrivals import arrival_of
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level
from harness.stats.messages import error_messages
from harness.workload.workload import drawn
from tests.waiting import until


def _plan(folder: Path, port: int, timeout: float) -> LoadPlan:
    return LoadPlan(
        url=f"http://127.0.0.1:{port}",
        api="tgi",
        model_name="tgi",
        stream=True,
        timeout=timeout,
        workload=drawn("chat", "20", "5", seed=1).as_dict(),
        seed=1,
        folder=str(folder),
        clock_monotonic=time.monotonic(),
    )


@pytest.mark.parametrize(
    "level",
    [Level(0, users=2, requests=4), Level(0, rate=20.0, arrival=arrival_of("constant"), requests=4)],
    ids=["users", "rate"],
)
def test_a_refused_request_counts_as_sent(tmp_path: Path, level: Level) -> None:
    """Only a dropped request has no moment of sending: sent = completed + failed + in flight."""
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        runner.run(_plan(tmp_path, taken.getsockname()[1], timeout=5.0), [level])
    records = list(read_journal(tmp_path).records)
    assert [record.error_kind for record in records] == ["refused"] * 4
    for record in records:
        assert record.sent_at is not None
        assert record.finished_at is not None
        assert record.scheduled_at <= record.sent_at <= record.finished_at
        assert level.rate or record.sent_at == record.scheduled_at


def test_a_request_that_no_connection_took_in_time_counts_as_sent(tmp_path: Path) -> None:
    """A full backlog lets connections wait: such a request times out like any other."""
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        runner.run(_plan(tmp_path, full.getsockname()[1], timeout=1.0), [Level(0, users=2, requests=3)])
    records = list(read_journal(tmp_path).records)
    assert {(record.status, record.error_kind) for record in records} == {("failed", "timeout")}
    assert all(record.sent_at is not None for record in records)


class _TurnsAway(BaseHTTPRequestHandler):
    status, headers_too, body = 400, (), b'{"error": {"message": "stream_options is not permitted by sk-planted123"}}'
    asked: ClassVar[list[float]] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.asked.append(time.monotonic())
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        for name, value in self.headers_too:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def turning_away(**changes: Any) -> Iterator[tuple[int, list[float]]]:
    handler = type("TurnsAway", (_TurnsAway,), {"asked": [], **changes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port, handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_whoever_is_turned_away_waits_and_the_level_ends_early(tmp_path: Path) -> None:
    """A second between a user's attempts, not 6,000 a second; the service's own words are in the records."""
    with turning_away() as (port, asked):
        outcome = runner.run(_plan(tmp_path, port, timeout=5.0), [Level(0, users=8, duration=60.0)])
    assert outcome.levels[0].ended_by == "turned_away"
    records = list(read_journal(tmp_path).records)
    assert len(records) == len(asked) <= 8 * 12
    assert {(each.error_kind, each.http_status) for each in records} == {("validation", 400)}
    assert {each.error_message for each in records} == {"stream_options is not permitted by [REDACTED]"}
    (messages,) = {each.message: each.count for each in error_messages(read_journal(tmp_path).records)}.items()
    assert messages == ("stream_options is not permitted by [REDACTED]", len(asked))


def test_retry_after_is_heeded(tmp_path: Path) -> None:
    """As seconds, and not for longer than the level."""
    changes = {"status": 503, "headers_too": (("retry-after", "20"),), "body": b"queue is full"}
    with turning_away(**changes) as (port, asked):
        runner.run(_plan(tmp_path, port, timeout=5.0), [Level(0, users=4, duration=3.0)])
    assert len(asked) == 4
    records = list(read_journal(tmp_path).records)
    assert {(each.error_kind, each.error_message) for each in records} == {("overloaded", "queue is full")}


def test_a_load_process_that_was_stopped_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: it never says that it is done, and the level must not wait for it for ever."""
    monkeypatch.setattr(runner, "DUMB_AFTER", 2.0)
    with turning_away() as (port, asked), WorkerPool(2) as pool:

        def stop() -> None:
            until(lambda: len(asked) > 2)
            pool.processes[1].send_signal(signal.SIGSTOP)

        stopper = threading.Thread(target=stop)
        stopper.start()
        plan = _plan(tmp_path, port, timeout=5.0)
        outcome = runner.run(replace(plan, processes=2), [Level(0, users=4, duration=4.0)], pool=pool)
        stopper.join()
    assert outcome.lost_processes == ("1",)
    assert outcome.levels[0].ended_at is not None


def test_answers_that_are_none_are_not_asked_for_without_a_pause(tmp_path: Path) -> None:
    """Bytes of another protocol come as quickly as a refusal."""
    with turning_away(status=200, body=b"\x16\x03\x01 garbage") as (port, asked):
        runner.run(_plan(tmp_path, port, timeout=5.0), [Level(0, users=4, duration=2.0)])
    assert 4 < len(asked) < 60
    assert {each.error_kind for each in read_journal(tmp_path).records} == {"protocol"}
