"""Faults strike when and how the scenario says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.emulator.faults import GARBAGE, FaultBook, fault_from_mapping
from harness.emulator.scenario import read_scenario
from harness.errors import UsageError
from tests.emulator.conftest import LIMITS, Emulator

SMALL = ("--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "L4", "--speed", "100")
ASK = {"inputs": "one two", "parameters": {"max_new_tokens": 6}}
Start = Callable[..., Emulator]


@pytest.fixture
def faulty(launch: Start, scenario: Callable[..., str]) -> Callable[..., Emulator]:
    """An emulator with these faults."""

    def start(*faults: dict[str, Any], wait: bool = True) -> Emulator:
        return launch(*SMALL, *LIMITS, "--scenario", scenario(faults=list(faults)), wait=wait)

    return start


STARTS = [
    ({"kind": "oom_at_warm_up"}, "WebserverFailed", "Not enough memory to handle 4096 prefill tokens."),
    ({"kind": "load_error", "text": "RuntimeError: boom"}, "ShardCannotStart", "RuntimeError: boom"),
    ({"kind": "load_error", "signal": 9}, "ShardCannotStart", "signaled to shutdown with signal 9 rank=0"),
    ({"kind": "download_error", "text": "no route"}, "DownloadError", "no route"),
]


@pytest.mark.parametrize(("fault", "error", "line"), STARTS)
def test_a_start_fails_as_told(faulty: Start, fault: dict[str, Any], error: str, line: str) -> None:
    """Each phase of a start can fail: the text in the log, TGI's last line, exit code 1."""
    running = faulty(fault, wait=False)
    assert running.ended() == 1
    assert running.stderr == f"Error: {error}\n"
    assert any(line in each for each in running.lines)


def test_running_out_of_memory_fails_the_batch_and_ends_the_server(faulty: Start) -> None:
    """424 with the text, /health still 200 for a moment, exit code 1."""
    running = faulty({"kind": "oom", "after_requests": 1})
    assert running.post("/generate", ASK).status == 200
    failed = running.post("/generate", ASK)
    assert failed.status == 424
    assert failed.json()["error"].startswith("Request failed during generation: Server error: CUDA out of memory.")
    assert running.ask("GET", "/health").status == 200
    late = running.post("/generate_stream", ASK)
    assert "No such file or directory (os error 2)" in late.tokens()[0]["error"]
    assert running.ended() == 1
    assert running.stderr == "Error: ShardFailed\n"
    assert any("Shard 0 crashed" in line for line in running.lines)


def test_a_killed_shard_is_unhealthy_at_once(faulty: Start) -> None:
    """503 from /health, then the launcher ends."""
    running = faulty({"kind": "crash", "at_running": 1})
    streamed = running.post("/generate_stream", ASK)
    text = "Request failed during generation: Server error: transport error"
    assert streamed.tokens() == [{"error": text, "error_type": "generation"}]
    health = running.ask("GET", "/health")
    assert (health.status, health.json()) == (503, {"error": "unhealthy", "error_type": "healthcheck"})
    assert running.ended() == 1
    assert any("signaled to shutdown with signal 9" in line for line in running.lines)


def test_a_failing_forward_leaves_the_server_alive(faulty: Start) -> None:
    """Every second forward fails: its requests get 424, the next ones an answer."""
    running = faulty({"kind": "error", "every": 2, "text": "boom"})
    one = {"inputs": "a", "parameters": {"max_new_tokens": 1}}
    assert [running.post("/generate", one).status for _ in range(4)] == [200, 424, 200, 424]
    assert running.ask("GET", "/health").status == 200
    assert running.metrics()['tgi_request_failure{err="generation"}'] == 2


def test_requests_are_refused_in_a_storm(faulty: Start) -> None:
    """429 for each second request, two of them in all."""
    running = faulty({"kind": "overload", "every": 2, "requests": 2})
    assert [running.post("/generate", ASK).status for _ in range(6)] == [200, 429, 200, 429, 200, 200]


def test_a_slow_shard_and_a_slow_health(faulty: Start) -> None:
    """Both take the time that was asked for, and answer."""
    running = faulty({"kind": "slow_shard", "factor": 1500.0}, {"kind": "slow_health", "seconds": 0.3})
    for path in ("/generate", "/health"):
        begun = time.monotonic()
        reply = running.post(path, ASK) if path == "/generate" else running.ask("GET", path)
        assert reply.status == 200
        assert time.monotonic() - begun > 0.25


def test_a_stream_is_cut_in_the_middle_of_an_event(faulty: Start) -> None:
    """Two whole events, half of the third, and no end of the body."""
    reply = faulty({"kind": "stream_cut", "after_events": 2}).post("/generate_stream", ASK)
    assert not reply.complete
    assert reply.body.count(b"\n\n") == 2
    assert reply.body.split(b"\n\n")[2].startswith(b'data: {"index":3,')


def test_an_error_event_in_a_stream_of_status_200(faulty: Start) -> None:
    """The form is the route's own."""
    running = faulty({"kind": "stream_error", "after_events": 1, "text": "boom"})
    native = running.post("/generate_stream", ASK)
    assert native.tokens()[1] == {
        "error": "Request failed during generation: Server error: boom", "error_type": "generation",
    }  # fmt: skip
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4, "stream": True}
    openai = running.post("/v1/chat/completions", chat)
    assert openai.tokens()[1]["error"]["http_status_code"] == 422


def test_garbage_between_events(faulty: Start) -> None:
    """Bytes that are no event stand between whole ones, every second stream only."""
    running = faulty({"kind": "stream_garbage", "after_events": 1, "every": 2})
    replies = [running.post("/generate_stream", ASK) for _ in range(2)]
    assert GARBAGE not in replies[0].body
    assert replies[1].chunks[1] == GARBAGE
    assert replies[1].body.replace(GARBAGE, b"") == replies[0].body


@pytest.mark.parametrize("size", [1, 7, 64])
def test_events_in_pieces_are_the_same_bytes(faulty: Start, server: Emulator, size: int) -> None:
    """Pieces of so many bytes, each a chunk; together the events as always."""
    reply = faulty({"kind": "stream_split", "size": size}).post("/generate_stream", ASK)
    assert max(map(len, reply.chunks)) == size
    assert reply.body == server.post("/generate_stream", ASK).body


def test_glued_events_are_the_same_bytes(faulty: Start, server: Emulator) -> None:
    """Several events in one chunk, and what is left over at the end."""
    reply = faulty({"kind": "stream_glue", "events": 4}).post("/generate_stream", ASK)
    assert [chunk.count(b"data: ") for chunk in reply.chunks] == [4, 2]
    assert reply.body == server.post("/generate_stream", ASK).body


MISTAKES = [
    ("faults: [{kind: quake}]", "unknown fault"),
    ("faults: [{kind: oom, after: 3}]", "wrong key or value after: 3"),
    ("faults: [{kind: error, text: 5}]", "wrong key or value text: 5"),
    ("faults: [{kind: [oom]}]", "unknown fault"),
    ("faults: [{kind: overload, every: 0}]", "wrong key or value every: 0"),
    ("faults: [{kind: hang, seconds: null}]", "wrong key or value seconds: None"),
    ("faults: 3", "expected a list of faults"),
    ("world: 3", "expected keys and numbers"),
    ("world: {gravity: 1}", "unknown key 'gravity'"),
    ("answers: {eos_after: soon}", "expected eos_after"),
    ("scheduler: {faithful_put_back: 1}", "expected faithful_put_back"),
    ("weather: {}", "unknown section 'weather'"),
    ("[1]", "expected sections"),
    ("{", "no YAML"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_in_the_scenario_is_named(tmp_path: Any, text: str, message: str) -> None:
    """Each wrong file and its message."""
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_scenario(str(path))


def test_conditions_are_all_needed() -> None:
    """A fault strikes only after its requests and at its load."""
    fault = fault_from_mapping({"kind": "error", "after_requests": 2, "at_running": 3}, "here")
    book = FaultBook((fault,))
    struck = []
    for requests, running in ((1, 5), (3, 2), (3, 3)):
        book.requests = requests
        struck.append(book.forward(running, 0.01).text is not None)
    assert struck == [False, False, True]
