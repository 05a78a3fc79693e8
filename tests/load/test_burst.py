"""The prober's client against small servers that behave as told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from harness.engines import APIS
from harness.engines.endpoint import Endpoint
from harness.load import burst as bursting
from harness.load.burst import Burst, BurstAnswer, Patience, _Gate, _settling, send_burst
from harness.workload.request import Request

Handler = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
LONG = 16 << 20  # bytes: more than sockets and their readers hold
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@contextmanager
def server(handler: Handler) -> Iterator[Endpoint]:
    """A server on a free port whose answers `handler` writes; it is given the number of the request."""
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), [0]
    count = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            count[0] += 1
            await handler(writer, count[0])
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port[0] = listening.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listening.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    ready.wait(10)
    try:
        yield Endpoint(f"http://127.0.0.1:{port[0]}")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def event(index: int, last: bool = False) -> bytes:
    document = {
        "index": index,
        "token": {"id": 1, "text": " a", "logprob": 0.0, "special": False},
        "generated_text": " a" if last else None,
        "details": {"finish_reason": "length", "generated_tokens": index, "input_length": 7} if last else None,
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def error(text: str, kind: str) -> bytes:
    return b"data: " + json.dumps({"error": text, "error_type": kind}).encode() + b"\n\n"


def ask(count: int, **fields: object) -> list[Request]:
    return [Request(f"prompt {number}", 2, 3) for number in range(count)]


def send(endpoint: Endpoint, waves: list[list[Request]], **options: object) -> Burst:
    options.setdefault("patience", Patience(stall=5, total=20))
    return send_burst(endpoint, APIS["tgi"], waves, **options)  # type: ignore[arg-type]


async def three_tokens(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(HEAD)
    for index in (1, 2, 3):
        writer.write(event(index, last=index == 3))
        await writer.drain()
        await asyncio.sleep(0.01)


def test_tokens_and_counts_are_noted() -> None:
    """Each token event has a moment, in order; the server's own counts are kept."""
    with server(three_tokens) as endpoint:
        burst = send(endpoint, [ask(4)])
    assert burst.ending == "done"
    for each in burst.answers:
        assert each.ok
        assert len(each.token_at) == 3
        assert each.token_at == sorted(each.token_at)
        assert (each.input_tokens, each.output_tokens) == (7, 3)


def test_a_wave_waits_for_the_first_tokens_of_the_one_before() -> None:
    """The second wave is sent after every request of the first has begun."""
    with server(three_tokens) as endpoint:
        burst = send(endpoint, [ask(3), ask(1)])
    first, second = burst.answers[:3], burst.answers[3]
    assert second.sent_at is not None
    assert second.sent_at >= max(each.token_at[0] for each in first)


@pytest.mark.parametrize(
    ("text", "error_type", "kind"),
    [
        ("Model is overloaded", "overloaded", "overloaded"),
        ("Input validation error: too long", "validation", "validation"),
    ],
)
def test_an_error_event_is_an_outcome(text: str, error_type: str, kind: str) -> None:
    """Streams are always answered 200; the event says what it was, in the service's own words."""

    async def refuse(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + error(text, error_type))

    with server(refuse) as endpoint:
        burst = send(endpoint, [ask(1)])
    assert (burst.answers[0].error_kind, burst.answers[0].error) == (kind, text)
    assert not burst.answers[0].ok


def test_a_queue_that_stopped_is_called_stalled() -> None:
    """Nobody gets a token while requests wait."""

    async def silence(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD)
        await writer.drain()
        await asyncio.sleep(30)

    with server(silence) as endpoint:
        burst = send(endpoint, [ask(2)], patience=Patience(stall=0.3, total=20))
    assert burst.ending == "stalled"
    assert [each.error_kind for each in burst.answers] == ["timeout", "timeout"]


def test_a_dead_service_ends_the_burst() -> None:
    """The watchdog looks at the process, not only at the sockets."""
    began = time.monotonic()

    async def silence(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + event(1))
        await writer.drain()
        await asyncio.sleep(30)

    with server(silence) as endpoint:
        burst = send(endpoint, [ask(2)], alive=lambda: time.monotonic() - began < 0.5)
    assert burst.ending == "died"
    assert all(each.begun for each in burst.answers)


def test_the_client_leaves_when_it_has_seen_enough() -> None:
    """With `stay`, whole answers are not waited for."""

    async def endless(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD)
        for index in range(1, 10_000):
            writer.write(event(index))
            await writer.drain()
            await asyncio.sleep(0.005)

    with server(endless) as endpoint:
        burst = send(endpoint, [ask(2)], leave_after_tokens=4)
    assert burst.ending == "done"
    assert all(each.left and each.ok and len(each.token_at) >= 4 for each in burst.answers)


def test_nobody_there_is_refused() -> None:
    """A port without a listener is an outcome, not an exception."""
    with server(three_tokens) as endpoint:
        pass
    burst = send(endpoint, [ask(1)])
    assert burst.answers[0].error_kind == "refused"


def test_a_stream_that_breaks_off_is_broken() -> None:
    """A body that ends before its last event is no answer."""

    async def cut(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HEAD + event(1))

    with server(cut) as endpoint:
        burst = send(endpoint, [ask(1)])
    assert not burst.answers[0].ok


def test_a_wave_goes_when_all_of_it_is_ready() -> None:
    """No request is whole before each has come: else an engine would answer the first while the last is made."""
    heads, whole = [0], []
    count = 40

    async def main() -> Burst:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            heads[0] += 1
            await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
            whole.append(heads[0])
            await three_tokens(writer, 1)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            endpoint = Endpoint(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
            return await asyncio.to_thread(send, endpoint, [ask(count)])

    burst = asyncio.run(main())
    assert burst.ending == "done"
    assert all(each.ok for each in burst.answers)
    # The server's own loop may get to the first bodies before the last heads, which is not the sender's doing.
    assert min(whole) >= count // 2


def test_no_request_is_whole_while_another_is_still_on_its_way() -> None:
    """The second one's prompt is so long that it stands until the server reads on; the first waits for it so long."""
    first_whole, early = asyncio.Event(), []

    async def main() -> Burst:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.split("content-length:")[1].split("\r\n")[0])
            if size > LONG:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(first_whole.wait(), 0.5)
                early.append(first_whole.is_set())
            await reader.readexactly(size)
            if size <= LONG:
                first_whole.set()
            await three_tokens(writer, 1)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            endpoint = Endpoint(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
            return await asyncio.to_thread(send, endpoint, [[*ask(1), replace(ask(1)[0], prompt="x" * LONG)]])

    burst = asyncio.run(main())
    assert all(each.ok for each in burst.answers)
    assert early == [False]


def test_the_gate_opens_when_the_last_request_is_there() -> None:
    """Not before, however long that takes."""

    async def main() -> list[bool]:
        gate, answers = _Gate(3), [BurstAnswer(each, 0) for each in ask(3)]
        opening = asyncio.ensure_future(gate.open_when_all_are_there())
        seen = []
        for number in range(3):
            seen.append(gate.opened.is_set())
            gate.arrive(answers[number])
            await asyncio.sleep(0.02)
        await opening
        return [*seen, gate.opened.is_set()]

    assert asyncio.run(main()) == [False, False, False, True]


@pytest.mark.parametrize(("count", "settles"), [(2, 0), (4, 0), (5, 1)])
def test_a_gate_that_keeps_an_order_lets_the_server_read_first(
    count: int, settles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last bytes, of as many requests as are read one after another; a pair may be taken either way."""
    waits = []

    def settling(sending: float) -> float:
        waits.append(sending)
        return 0.0

    monkeypatch.setattr(bursting, "_settling", settling)

    async def main() -> None:
        gate, answers = _Gate(count), [BurstAnswer(each, 0) for each in ask(count)]
        for each in answers:
            gate.arrive(each)
        await gate.open_when_all_are_there()

    asyncio.run(main())
    assert len(waits) == settles


@pytest.mark.parametrize(("sending", "seconds"), [(0.001, 0.02), (0.08, 0.08), (9.0, 0.5)])
def test_a_server_gets_as_long_to_read_as_its_client_took_to_send(sending: float, seconds: float) -> None:
    """It runs on the same machine, or one that is no slower; a server that lets few connect is not waited for."""
    assert _settling(sending) == seconds
