"""What is seen of the engine behind HTTP: turns, permits, the queue, disconnects, counters, time."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import ModelShape, find_shape
from harness.emulator import sse
from harness.emulator.sse import EventStream
from harness.simulator.cost import cost_of
from harness.simulator.memory import Budget, ServingPlan, budget, resolve
from harness.simulator.scheduler import EngineSettings
from harness.simulator.virtual import PlannedRequest, simulate
from harness.simulator.world import World
from tests.emulator.conftest import LIMITS, Emulator

SMALL = ("--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "L4")


def ask(words: int, new: int, first: str = "start", **parameters: Any) -> dict[str, Any]:
    """A prompt of so many words besides `<s>`."""
    inputs = " ".join([first, *["the"] * (words - 1)])
    return {"inputs": inputs, "parameters": {"max_new_tokens": new, **parameters}}


def settled(server: Emulator) -> dict[str, float]:
    """The counters when nothing runs or waits."""
    for _ in range(500):
        now = server.metrics()
        if not (now.get("tgi_batch_current_size") or now.get("tgi_queue_size")):
            return now
        time.sleep(0.01)
    raise AssertionError("the engine does not come to rest")


def added(server: Emulator, act: Callable[[], object]) -> dict[str, float]:
    """What an action adds to the counters; sums of times and buckets left out."""
    before = settled(server)
    act()
    after = settled(server)
    counted = {name: after[name] - before.get(name, 0) for name in after if "_bucket" not in name}
    return {name: n for name, n in counted.items() if n and "_sum" not in name and "quantile" not in name}


@pytest.fixture(scope="module")
def long_server() -> Iterator[Emulator]:
    running = Emulator(
        *SMALL, "--max-input-tokens", "2048", "--max-total-tokens", "4096", "--max-batch-prefill-tokens", "4096",
        "--speed", "1000",
    )  # fmt: skip
    yield running
    running.stop()


TURNS = [
    (1, 1024, 1024),
    (1, 1025, 2048),
    (1, 1500, 2048),
    (81, None, 2048),  # then the grown prompt of 82 + 2048 tokens is longer than an input may be
    (1320, None, 1024),
    (1802, 900, 900),
]


@pytest.mark.parametrize(("words", "asked", "made"), TURNS)
def test_long_answers_run_in_turns_of_1024(long_server: Emulator, words: int, asked: int | None, made: int) -> None:
    """A turn is never shortened; an answer ends where the grown prompt would break a limit."""
    body = ask(words, 0, details=True)
    body["parameters"]["max_new_tokens"] = asked
    reply = long_server.post("/generate", body)
    details = reply.json()["details"]
    assert (details["generated_tokens"], details["finish_reason"]) == (made, "length")
    assert len(details["tokens"]) == int(reply.headers["x-generated-tokens"]) == made


def test_a_truncated_prompt_is_truncated_again(long_server: Emulator) -> None:
    """With `truncate` the grown prompt never becomes too long."""
    body = ask(1802, 2000, truncate=1500, details=True)
    assert long_server.post("/generate", body).json()["details"]["generated_tokens"] == 2048


def test_turns_are_counted_one_by_one(long_server: Emulator) -> None:
    """Two lengths and two new-token samples, but one request."""
    counts = added(long_server, lambda: long_server.post("/generate", ask(1, 1500)))
    assert counts["tgi_request_count"] == counts["tgi_request_success"] == 1
    assert counts["tgi_request_input_length_count"] == counts["tgi_request_max_new_tokens_count"] == 2
    assert counts["tgi_request_generated_tokens_count"] == 1


COUNTS = [
    ("/generate", ask(3, 2), {"tgi_request_count": 1, "tgi_request_success": 1, "tgi_request_input_length_count": 1}),
    ("/generate_stream", ask(3, 2), {"tgi_request_count": 1, "tgi_request_success": 1}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
        {"tgi_request_count": 2, "tgi_request_success": 1, "tgi_request_max_new_tokens_count": 1},
    ),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2}, {"tgi_request_count": 3, "tgi_request_success": 2}),
    ("/vertex", {"instances": [ask(3, 2)]}, {"tgi_request_count": 2, "tgi_request_success": 1}),
    (
        "/generate",
        ask(3, 2, best_of=2, do_sample=True),
        {"tgi_request_count": 1, "tgi_request_success": 1, "tgi_request_input_length_count": 2},
    ),
    ("/generate", {"inputs": ""}, {"tgi_request_count": 1, 'tgi_request_failure{err="validation"}': 1}),
    ("/generate", {}, {}),
    ("/tokenize", {"inputs": "a"}, {}),
    (
        "/v1/completions",
        {"prompt": "a", "suffix": "b"},
        {"tgi_request_count": 1, 'tgi_request_failure{err="validation"}': 1},
    ),
]


@pytest.mark.parametrize(("path", "body", "expected"), COUNTS)
def test_what_a_request_adds_to_the_counters(
    server: Emulator, path: str, body: dict[str, Any], expected: dict[str, int]
) -> None:
    """Chats count twice, completions once more than their prompts; refused bodies not at all."""
    counts = added(server, lambda: server.post(path, body))
    watched = ("tgi_request_count", "tgi_request_success", "tgi_request_failure")
    shown = {name: n for name, n in counts.items() if name in expected or name.startswith(watched)}
    assert shown == expected


def test_forwards_are_counted_by_kind(server: Emulator) -> None:
    """Five tokens are one prefill and four decodes."""
    counts = added(server, lambda: server.post("/generate", ask(3, 5)))
    assert counts['tgi_batch_inference_count{method="prefill"}'] == 1
    assert counts['tgi_batch_inference_success{method="decode"}'] == 4
    assert counts["tgi_request_skipped_tokens_count"] == 5
    assert counts["tgi_batch_next_size_count"] == 1


def test_permits_are_taken_before_anything_is_checked(launch: Callable[..., Emulator]) -> None:
    """A full server answers 429 even to a bad request, as an event in a stream, and all or nothing for a batch."""
    running = launch(*SMALL, *LIMITS, "--max-concurrent-requests", "1")
    with running.open() as wire:
        wire.send("POST", "/generate_stream", ask(3, 1000))
        wire.head()
        wire.chunk()
        overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
        reply = running.post("/generate", {"inputs": "a", "parameters": {"top_k": 0}})
        assert (reply.status, reply.json()) == (429, overloaded)
        assert "retry-after" not in reply.headers
        streamed = running.post("/generate_stream", ask(3, 3))
        assert (streamed.status, streamed.tokens()) == (200, [overloaded])
        assert running.post("/tokenize", {"inputs": "a"}).status == 200
    assert settled(running)['tgi_request_failure{err="overloaded"}'] == 2
    assert running.post("/generate", ask(3, 3)).status == 200
    assert running.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1}).status == 429
    mixed = running.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1, "stream": True}).tokens()
    assert sorted("error" in chunk for chunk in mixed) == [False, True]


def test_a_client_that_leaves_is_noticed_at_its_next_token(launch: Callable[..., Emulator]) -> None:
    """Plain or streamed: its answer is not made to the end, and nothing but `dropped` is counted."""
    running = launch(*SMALL, *LIMITS)
    for path in ("/generate", "/generate_stream"):

        def leave(path: str = path) -> None:
            with running.open() as wire:
                wire.send("POST", path, ask(3, 1000))
                while not running.metrics().get("tgi_batch_current_size"):
                    time.sleep(0.005)

        counts = added(running, leave)
        assert counts['tgi_request_failure{err="dropped"}'] == 1
        assert "tgi_request_success" not in counts
        assert counts['tgi_batch_inference_count{method="decode"}'] < 999


def test_health_waits_for_the_running_forward_and_others_do_not(
    launch: Callable[..., Emulator], scenario: Callable[..., str]
) -> None:
    """The shard has one thread: /health comes after the forward, /info at once."""
    faults = [{"kind": "hang", "seconds": 1.0}]
    running = launch(*SMALL, *LIMITS, "--scenario", scenario(faults=faults))
    with running.open() as wire:
        wire.send("POST", "/generate", ask(3, 1))
        while running.metrics().get("tgi_batch_next_size_count", 0) < 1:
            time.sleep(0.005)
        order: list[str] = []

        def call(path: str) -> None:
            running.ask("GET", path)
            order.append(path)

        threads = [threading.Thread(target=call, args=(path,)) for path in ("/health", "/info")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert order == ["/info", "/health"]
        assert wire.reply().status == 200


def test_lookups_of_the_prefix_cache_are_in_the_log(launch: Callable[..., Emulator]) -> None:
    """`Prefix P - Suffix S`, the whole cached prefix counted."""
    running = launch(*SMALL, *LIMITS, "--speed", "100")
    # The third asks for prefill details, which bypasses the cache.
    for body in (ask(43, 3), ask(43, 3), ask(43, 3, decoder_input_details=True), ask(20, 3, first="other")):
        assert running.post("/generate", body).status == 200
    running.stop()
    lookups = [line.rpartition(": ")[2] for line in running.lines if "Prefix " in line and "radix.rs" in line]
    expected = ["Prefix 0 - Suffix 46", "Prefix 44 - Suffix 2", "Prefix 0 - Suffix 46", "Prefix 1 - Suffix 22"]
    assert lookups == expected


def crowded(shape: ModelShape, tokens: int) -> int:
    """Bytes that others must hold for an L4 to be left with at most so many tokens."""
    plan = ServingPlan(shape, find_gpu("L4"), max_input_tokens=600, max_total_tokens=700, max_batch_prefill_tokens=600)
    low, high = 0, 24 * 2**30
    while high - low > 2**20:
        middle = (low + high) // 2
        outcome = budget(plan, World(used_by_others=middle))
        low, high = (middle, high) if isinstance(outcome, Budget) and outcome.tokens > tokens else (low, middle)
    return high


def test_a_request_that_can_never_be_placed_blocks_the_queue(
    launch: Callable[..., Emulator], scenario: Callable[..., str]
) -> None:
    """The prefix lookup pins what would have to be evicted: nothing moves, /health is 200. A switch mends it."""
    shape = find_shape("meta-llama/Llama-2-7B")
    assert shape is not None
    limits = ("--max-input-tokens", "600", "--max-total-tokens", "700", "--max-batch-prefill-tokens", "600")
    for mended in (False, True):
        world = {"used_by_others": crowded(shape, 1000)}
        path = scenario(world=world, scheduler={"faithful_pin_deadlock": not mended})
        running = launch(
            "--model-id", "meta-llama/Llama-2-7B", "--gpu", "L4", *limits, "--speed", "1000", "--scenario", path
        )
        assert running.post("/generate", ask(499, 100, "first")).status == 200
        with running.open() as wire:
            wire.send("POST", "/generate", ask(499, 100, "second"))
            wire.socket.settimeout(10 if mended else 0.5)
            if mended:
                assert wire.reply().status == 200
                continue
            with pytest.raises(TimeoutError):
                wire.reply()
            now = running.metrics()
            assert (now["tgi_queue_size"], now["tgi_batch_current_size"]) == (1, 0)
            assert running.ask("GET", "/health").status == 200


def test_answers_may_end_by_themselves(launch: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """With a length for answers in the scenario: an end token, its reason, and as `stop` in a chat."""
    running = launch(*SMALL, *LIMITS, "--speed", "100", "--scenario", scenario(answers={"eos_after": 3}))
    details = running.post("/generate", ask(3, 9, details=True)).json()["details"]
    assert (details["finish_reason"], details["generated_tokens"]) == ("eos_token", 3)
    assert (details["tokens"][-1]["text"], details["tokens"][-1]["special"]) == ("</s>", True)
    at_limit = running.post("/generate", ask(3, 3, details=True)).json()["details"]
    assert at_limit["finish_reason"] == "length"
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 9}
    assert running.post("/v1/chat/completions", chat).json()["choices"][0]["finish_reason"] == "stop"
    chunk = running.post("/v1/chat/completions", {**chat, "stream": True}).tokens()[-1]
    assert chunk["choices"][0]["delta"]["content"] == ""
    final = running.post("/v1/completions", {"prompt": "a", "max_tokens": 9, "stream": True}).tokens()[-1]
    assert (final["choices"][0]["text"], final["choices"][0]["finish_reason"]) == ("</s>", "eos_token")


def test_speculated_tokens_come_as_events_of_their_own(launch: Callable[..., Emulator]) -> None:
    """Several tokens of one step: each an event, all counted."""
    running = launch(*SMALL, *LIMITS, "--speculate", "2", "--speed", "100")
    before = settled(running)
    reply = running.post("/generate_stream", ask(3, 7))
    assert [token["index"] for token in reply.tokens()] == [1, 2, 3, 4, 5, 6, 7]
    after = settled(running)
    assert after["tgi_request_skipped_tokens_sum"] - before.get("tgi_request_skipped_tokens_sum", 0) == 4


def test_the_key_guards_what_generates(launch: Callable[..., Emulator]) -> None:
    """401 without a body; compared without case; the rest is open."""
    running = launch(*SMALL, *LIMITS, "--api-key", "secret", "--speed", "100")
    refused = running.post("/generate", ask(3, 1))
    assert (refused.status, refused.body) == (401, b"")
    assert running.post("/generate", ask(3, 1), authorization="bearer SECRET").status == 200
    assert running.ask("GET", "/info").status == running.ask("GET", "/health").status == 200
    assert running.ask("PUT", "/generate").status == 401
    assert not any("secret" in line for line in running.lines)


class _Recorder:
    """An exchange that only notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def start_stream(self, headers: object) -> None:
        return

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def end_stream(self) -> None:
        self.sent.append(b"end")


def test_silence_is_filled_with_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment after the set time without events, and none once the stream is over."""
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.05)

    async def scene() -> list[bytes]:
        exchange = _Recorder()
        stream = EventStream(exchange, [])  # type: ignore[arg-type]
        stream.event(b"{}")
        await asyncio.sleep(0.08)
        stream.close()
        await asyncio.sleep(0.1)
        return exchange.sent

    assert asyncio.run(scene()) == [b"data: {}\n\n", b":\n\n", b"end"]


def planned_load() -> list[PlannedRequest]:
    return [PlannedRequest(0.11 * i, 60 + 35 * (i % 4), 8 + 3 * i) for i in range(8)]


def virtual_ends(plan: ServingPlan) -> dict[int, float]:
    """When each answer ends in virtual time."""
    started = budget(plan)
    assert isinstance(started, Budget)
    settings = EngineSettings(max_batch_prefill_tokens=2048, max_batch_total_tokens=started.tokens)
    records = simulate(planned_load(), settings, cost_of(resolve(plan), World()))
    return {index: record.finished_at or 0.0 for index, record in enumerate(records)}


def real_ends(running: Emulator) -> dict[int, float]:
    """When each answer ends for a client that sends the same load in real time."""
    requests, ends = planned_load(), {}
    begun = time.monotonic() + 0.2

    def send(index: int) -> None:
        planned = requests[index]
        time.sleep(max(0.0, begun + planned.at - time.monotonic()))
        running.post("/generate", ask(planned.input_tokens - 1, planned.output_tokens, f"w{time.monotonic_ns()}"))
        ends[index] = time.monotonic() - begun

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_real_time_agrees_with_virtual_time(launch: Callable[..., Emulator]) -> None:
    """The same requests in both clocks: the same order of endings, and durations within 5 % at the median.

    A machine that is busy with something else can only be late, so that the best of a few tries counts.
    """
    shape = find_shape("meta-llama/Llama-3.1-8B")
    assert shape is not None
    plan = ServingPlan(
        shape, find_gpu("L4"), max_input_tokens=1024, max_total_tokens=2048, max_batch_prefill_tokens=2048
    )
    virtual = virtual_ends(plan)
    running = launch(
        "--model-id", "meta-llama/Llama-3.1-8B", "--gpu", "L4", "--max-input-tokens", "1024", "--max-total-tokens",
        "2048", "--max-batch-prefill-tokens", "2048",
    )  # fmt: skip
    due = [planned.at for planned in planned_load()]
    found = []
    for _ in range(5):
        real = real_ends(running)
        same = sorted(real, key=lambda i: real[i]) == sorted(virtual, key=lambda i: virtual[i])
        error = abs(statistics.median((real[i] - due[i]) / (virtual[i] - due[i]) for i in real) - 1)
        found.append((same, error))
        if same and error < 0.05:
            return
    raise AssertionError(found)
