"""A server of the OpenAI kind over raw sockets, with one fault, and a log of the request ids that reached it."""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

Write = Callable[[bytes], Awaitable[None]]
Answer = Callable[[Write, int], Awaitable[None]]

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_GAP = 0.01


def event(delta: object, reason: object = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "x", "choices": [choice], **more}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def document(status: bytes, body: bytes, *fields: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *fields])
    return head + b"\r\n\r\n" + body


async def _tokens(write: Write, count: int) -> None:
    await write(_HEAD + chunk(event({"role": "assistant", "content": ""})))
    for number in range(count):
        await asyncio.sleep(_GAP)
        await write(chunk(event({"content": f" w{number}"})))


async def normal(write: Write, count: int) -> None:
    await _tokens(write, count)
    usage = {"prompt_tokens": 20, "completion_tokens": count}
    last = event({}, "length") + b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    await write(chunk(last + b"data: [DONE]\n\n") + b"0\r\n\r\n")


def at_once(data: bytes) -> Answer:
    async def answer(write: Write, count: int) -> None:
        await write(data)

    return answer


def after_tokens(data: bytes, tokens: int = 3, *, cut: bool = False) -> Answer:
    async def answer(write: Write, count: int) -> None:
        await _tokens(write, tokens)
        for at in range(0, len(data), 65536):
            await write(data[at : at + 65536])
        if cut:
            raise ConnectionError

    return answer


async def silent(write: Write, count: int) -> None:
    await asyncio.sleep(3600)


async def one_byte_at_a_time(write: Write, count: int) -> None:
    for byte in _HEAD + chunk(event({"content": "a"}, "length")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n":
        await write(bytes([byte]))
        await asyncio.sleep(0)


_PACKED = zlib.compress(b"data: {}")
_EVENTS = b"content-type: text/event-stream"
_ENDLESS = b"".join(chunk(b"a" * 65536) for _ in range(60))
_USAGE = b'data: {"choices": [], "usage": {"completion_tokens": %s, "prompt_tokens": %s}}\n\ndata: [DONE]\n\n'
_HUGE = event({}, "length") + _USAGE % (b"9" * 30, b"4" * 5000)

FAULTS: dict[str, Answer] = {
    "none": normal,
    "400 with a reason": at_once(document(b"400 Bad Request", b'{"error": {"message": "top_k is not permitted"}}')),
    "429 with Retry-After": at_once(document(b"429 Too Many Requests", b'{"error": "slow down"}', b"retry-after: 2")),
    "503 page of a proxy": at_once(document(b"503 Unavailable", b"<html><title>503 no backend</title></html>")),
    "500 with an empty body": at_once(document(b"500 Error", b"")),
    "redirects for ever": at_once(document(b"307 Elsewhere", b"", b"location: /v1/chat/completions")),
    "cut in the middle": after_tokens(b"", cut=True),
    "cut behind [DONE]": after_tokens(chunk(event({}, "stop") + b"data: [DONE]\n\n"), cut=True),
    "no answer at all": silent,
    "event without an end": after_tokens(chunk(b"data: ") + _ENDLESS),
    "document without an end": at_once(_HEAD + chunk(b"{") + _ENDLESS),
    "counts of 30 digits": after_tokens(chunk(_HUGE) + b"0\r\n\r\n"),
    "half a surrogate": after_tokens(chunk(event({}, "\ud800\0\x1b[2J") + b"data: [DONE]\n\n") + b"0\r\n\r\n"),
    "JSON of 9,000 levels": after_tokens(chunk(b"data: " + b"[" * 9000 + b"\n\n")),
    "chunk size that lies": after_tokens(b"ffffff\r\nshort\r\n", cut=True),
    "chunk size that is none": after_tokens(b"zz\r\nx\r\n"),
    "bytes behind the last chunk": after_tokens(
        chunk(event({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\nHTTP/1.1 500 x\r\n\r\nmore"
    ),
    "length of 5,000 digits": at_once(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n"),
    "head without an end": at_once(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40000),
    "no HTTP": at_once(b"\x16\x03\x01\x00\xff" * 50 + b"\r\n\r\n"),
    "one byte at a time": one_byte_at_a_time,
    "compressed stream": at_once(document(b"200 OK", _PACKED, b"content-encoding: deflate", _EVENTS)),
}  # fmt: skip

_BOMB = zlib.compressobj(wbits=31)
_PAGE_BOMB = b"".join(_BOMB.compress(b" " * (1 << 20)) for _ in range(200)) + _BOMB.flush()
PAGE_FAULTS: dict[str, bytes] = {
    "page of 200 MB in 200 kB": document(b"200 OK", _PAGE_BOMB, b"content-encoding: gzip"),
    "page that is no JSON": document(b"200 OK", b"\xff\xfe{"),
    "page of 9,000 levels": document(b"200 OK", b"[" * 9000),
    "no such page": document(b"404 Not Found", b""),
}


class RawServer:
    """Serves in a thread until it is left. ids: of requests whose head and body were read."""

    def __init__(self, fault: str) -> None:
        self.fault, self.ids, self.port = fault, list[str](), 0
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> RawServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        open_now: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            open_now.add(task)
            task.add_done_callback(open_now.discard)

        server = await asyncio.start_server(begin, "127.0.0.1", 0, limit=8 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while line := await reader.readline():
                fields = {}
                while (field := (await reader.readline()).strip()) != b"":
                    name, _, value = field.partition(b":")
                    fields[name.lower()] = value.strip().decode("latin-1")
                body = await reader.readexactly(int(fields.get(b"content-length") or 0))
                if line.startswith(b"POST"):
                    self.ids.append(fields.get(b"x-request-id", ""))
                    await self._answer(writer, int(json.loads(body).get("max_tokens") or 8))
                else:
                    writer.write(self._page(line.split(b" ")[1]))
                await writer.drain()
        if writer.transport is not None:
            writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, count: int) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        await FAULTS.get(self.fault, normal)(write, count)

    def _page(self, path: bytes) -> bytes:
        if path.startswith(b"/v1/models"):
            models = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
            return PAGE_FAULTS.get(self.fault, document(b"200 OK", models))
        return document(b"404 Not Found", b"{}")
