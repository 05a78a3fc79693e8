"""The wait for a first answer: what is said meanwhile, and what is not taken for readiness."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines import engine_named
from harness.engines.base import EngineInfo, Invocation
from harness.engines.client import Client
from harness.engines.endpoint import Endpoint
from harness.engines.identify import look
from harness.engines.tgi.log import TgiLog
from harness.stack import readiness, timings
from harness.stack.launch import local_launch
from harness.stack.process import ProcessService
from harness.stack.readiness import StartFailed, wait_until_ready
from harness.stack.service import ServiceFacts, State

pytestmark = pytest.mark.usefixtures("no_process_left")
MODEL = Model("tiny", "Qwen/Qwen2.5-0.5B-Instruct")


def test_each_phase_is_told_once_and_measured(launcher: str) -> None:
    """One line per change, with the time that this phase took at an earlier start."""
    said: list[str] = []
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        ready = wait_until_ready(service, timeout=30, say=said.append, expected={"first answer": 61.0})
    finally:
        service.stop(grace=5)
    assert len(said) == len(set(said))
    assert said[-1].startswith("tiny: ready")
    assert any(text.startswith("tiny: first answer") and "took 61.0 s last time" in text for text in said)
    assert "first answer" in ready.phases
    assert 0 < sum(ready.phases.values()) <= ready.seconds


def test_healthy_service_that_answers_nothing_is_not_ready(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 from /health and the word `Connected` are not enough."""
    monkeypatch.setenv("STAND_IN", "mute")
    monkeypatch.setattr(readiness, "_REFUSED_FOR", 0.3)
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        with pytest.raises(StartFailed, match=r"generating one token failed.*GenerationError") as failed:
            wait_until_ready(service, timeout=30)
    finally:
        service.stop(grace=5)
    assert (failed.value.failure.cause, failed.value.exit_code) == ("no-answer", 4)


def test_proxy_of_the_environment_is_not_asked(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy knows nothing of 127.0.0.1."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    service = ProcessService(local_launch(MODEL, program=launcher))
    service.start()
    try:
        assert wait_until_ready(service, timeout=30).info.model_id == MODEL.repo
    finally:
        service.stop(grace=5)


class Fetching:
    """A service whose image takes longer to come than its start may take; then it ends at once."""

    name, endpoint = "slow", Endpoint("http://127.0.0.1:1")

    def __init__(self) -> None:
        self.looks = 0

    def state(self) -> State:
        self.looks += 1
        if self.looks > 8:
            return State(False, 1)
        progress = f"{self.looks // 4} of 2"
        return State(True, detail="pulling the image", progress=progress, preparing=True)

    def log_lines(self) -> Iterator[str]:
        return iter(())

    def facts(self) -> ServiceFacts:
        return ServiceFacts("compose", "tgi")


def test_fetching_an_image_is_no_slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take longer than the start itself; how far it is is told once per change."""
    monkeypatch.setattr(readiness, "_POLL", 0.02)
    said: list[str] = []
    with pytest.raises(StartFailed) as failed:
        wait_until_ready(Fetching(), timeout=0.1, say=said.append)  # type: ignore[arg-type]
    assert failed.value.failure.cause == "unknown"
    assert said[:3] == [f"slow: pulling the image: {done} of 2" for done in range(3)]


class Strict(BaseHTTPRequestHandler):
    """Only named routes, and limits that not even the shortest request meets."""

    def do_POST(self) -> None:
        body = b'{"error":"Input validation error","error_type":"validation"}' if self.path != "/" else b"no such page"
        self.send_response(422 if self.path != "/" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_refusal_by_its_limits_is_an_answer() -> None:
    """Who holds a request against its limits is alive, also where TGI's client finds no answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Strict) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        told = asked(Endpoint(f"http://127.0.0.1:{server.server_port}"), 5)
        server.shutdown()
    assert told is None


def test_nobody_there() -> None:
    """No answer is no error of ours."""
    nobody = Endpoint("http://127.0.0.1:1")
    assert look(nobody, timeout=1) is None
    assert "Connection" in (asked(nobody, 1) or "")


def asked(endpoint: Endpoint, timeout: float) -> str | None:
    """What came of a request for one token."""
    with Client(endpoint, timeout) as client:
        return engine_named("tgi").first_answer(client, "tgi", timeout)


def test_limits_come_from_where_they_are_told() -> None:
    """/info first; the budget from the log, because flash models ignore the option; the prefill budget from the"
    " option."""
    information = EngineInfo("tgi", "3.3.7", "m", False, Limits(max_input_tokens=10, max_total_tokens=20))
    log = TgiLog(max_batch_total_tokens=2048, max_batch_prefill_tokens=4096, max_input_tokens=99)
    options = {"MAX_BATCH_PREFILL_TOKENS": "512", "MAX_BATCH_TOTAL_TOKENS": "9999", "MAX_CONCURRENT_REQUESTS": "7"}
    engine = engine_named("tgi")
    assert engine.limits_in_force(information, log, Invocation(environment=options)) == Limits(
        max_input_tokens=10,
        max_total_tokens=20,
        max_batch_prefill_tokens=512,
        max_batch_total_tokens=2048,
        max_concurrent_requests=7,
    )
    assert engine.limits_in_force(information, log, Invocation()).max_batch_prefill_tokens == 4096


def test_timings_are_remembered() -> None:
    """The second start knows how long the first took, and a spoilt file is no obstacle."""
    assert timings.last("key") == {}
    timings.note("key", {"loading": 12.345})
    assert timings.last("key") == {"loading": 12.3}
    (timings.state_folder() / "timings.json").write_text("{", encoding="utf-8")
    assert timings.last("key") == {}
