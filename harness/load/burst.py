"""Sends a set of requests at once and records the outcome of each: the load of a probe. No Locust, rates or statistics.

Waves: the requests of one wave are sent together; the next wave follows when all of the wave before have their first
token, or as many tokens as `min_tokens_before_next_wave` says. A watchdog ends the burst when the service died, or when
nobody got a token for a while although requests wait: a queue of TGI can stop for ever without any sign
(backends/v3/src/radix.rs, the lookup that pins what must be evicted).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from harness import interrupts
from harness.engines.api import NO_EXTRAS, Api, Call, Extras
from harness.engines.endpoint import Endpoint
from harness.engines.route import proxy, trusted
from harness.workload.request import Request

Ending = Literal["done", "died", "stalled", "late"]
_LOOK = 0.05  # seconds between two looks of the watchdog
_LOOK_BETWEEN = 0.005  # the same while a wave is awaited that should follow at a certain moment
_AFTER_DEATH = 3.0  # seconds that an engine gets to end after a failed generation, before it counts as alive
_GATHERING = 10.0  # seconds for all requests of a wave to be ready
_FEW = 4  # requests of a wave, up to which it does not matter which is taken first
_SETTLING = 0.02, 0.5  # seconds, at least and at most, in which a server reads what was sent of them
_GIVE_UP = 2.0  # seconds for open answers to be cut off


@dataclass
class BurstAnswer:
    """One request of a burst. Moments are seconds since the burst began, null where they never came. Tokens that were
    read in one turn of the event loop, of whichever request, have one moment.

    left: the client went away as planned, after enough tokens. error: the service's own words, shortened.
    """

    request: Request
    wave: int
    sent_at: float | None = None
    token_at: list[float] = field(default_factory=list)
    finished_at: float | None = None
    http_status: int | None = None
    error_kind: str | None = None
    error: str | None = None
    left: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def begun(self) -> bool:
        return bool(self.token_at)

    @property
    def ok(self) -> bool:
        return self.error_kind is None and (self.left or self.finished_at is not None)


@dataclass(frozen=True)
class Burst:
    """All answers, in the order of the requests, and how it ended: `done`, `died` (the service), `stalled` (nobody got
    a token for a while), `late` (the time was over).
    """

    answers: tuple[BurstAnswer, ...]
    ending: Ending
    seconds: float


@dataclass(frozen=True)
class Patience:
    """Seconds. stall: without a token for anyone while requests wait. total: for the whole burst."""

    stall: float = 60.0
    total: float = 600.0


def send_burst(
    endpoint: Endpoint,
    api: Api,
    waves: Sequence[Sequence[Request]],
    *,
    alive: Callable[[], bool] = lambda: True,
    leave_after_tokens: int | None = None,
    waiting: int = 0,
    min_tokens_before_next_wave: int = 1,
    patience: Patience = Patience(),
    stream: bool = True,
    extras: Extras = NO_EXTRAS,
) -> Burst:
    """Send all waves and wait for their answers; an exception of the caller's thread (Ctrl-C) cuts them off.

    alive: asked all the time whether the service still runs. leave_after_tokens: leave when every request that was not
    refused has this many; None waits for whole answers. waiting: this many requests need not have begun for that.
    min_tokens_before_next_wave: what each answer of a wave must have, or be over, before the next wave follows. extras:
    what the engine knows.
    """
    with interrupts.held_back():  # raised in the middle of asyncio, it would be lost; the sender looks by itself
        return asyncio.run(
            _Sender(
                endpoint,
                api,
                waves,
                alive,
                leave_after_tokens,
                waiting,
                min_tokens_before_next_wave,
                patience,
                stream,
                extras,
            ).run()
        )


class _Gate:
    """Lets the requests of a wave go at once. Making them and connecting takes a millisecond or more for each; if the
    first had gone before the last was made, an engine would have begun to answer it.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.opened, self._all = asyncio.Event(), asyncio.Event()
        self._there: set[int] = set()

    def arrive(self, each: BurstAnswer) -> None:
        """Of a request that is ready to go, or has failed."""
        self._there.add(id(each))
        if len(self._there) == self.count:
            self._all.set()

    async def open_when_all_are_there(self) -> None:
        """At the latest after a while: a server may not let this many connect."""
        if self.count > 1:
            began = time.monotonic()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all.wait(), _GATHERING)
            if self.count > _FEW:
                await asyncio.sleep(_settling(time.monotonic() - began))
        self.opened.set()


def _settling(sending: float) -> float:
    """Seconds until a server that is as slow as its client has read all but the last bytes: of a long body that it
    still reads it would find the end later than that of a short one, which was sent after it.
    """
    least, most = _SETTLING
    return min(most, max(least, sending))


class _Sender:
    def __init__(
        self,
        endpoint: Endpoint,
        api: Api,
        waves: Sequence[Sequence[Request]],
        alive: Callable[[], bool],
        leave_after_tokens: int | None,
        waiting: int,
        min_tokens_before_next_wave: int,
        patience: Patience,
        stream: bool,
        extras: Extras,
    ) -> None:
        self.extras = extras
        self.endpoint, self.api, self.alive, self.leave_after_tokens = endpoint, api, alive, leave_after_tokens
        self.waiting, self.min_tokens_before_next_wave, self.patience, self.stream = (
            waiting,
            min_tokens_before_next_wave,
            patience,
            stream,
        )
        self.waves = [[BurstAnswer(request, number) for request in wave] for number, wave in enumerate(waves)]
        self.answers = [each for wave in self.waves for each in wave]
        self.began = self.moved = time.monotonic()
        self.stirred = asyncio.Event()  # a token or an end came
        self.turn: float | None = None  # the moment of this turn of the event loop
        self.doubt: float | None = None  # since when a failed generation makes us doubt that the service lives

    async def run(self) -> Burst:
        asyncio.get_running_loop().set_exception_handler(_but_interrupts)
        connector = aiohttp.TCPConnector(limit=0, ssl=_verified(self.endpoint))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            tasks: list[asyncio.Task[None]] = []
            try:
                ending = await self._watch(session, tasks)
            finally:
                for task in tasks:
                    task.cancel()
                if tasks:
                    await asyncio.wait(tasks, timeout=_GIVE_UP)
        self._close(ending)
        return Burst(tuple(self.answers), ending, time.monotonic() - self.began)

    async def _watch(self, session: aiohttp.ClientSession, tasks: list[asyncio.Task[None]]) -> Ending:
        for number, wave in enumerate(self.waves):
            gate = _Gate(len(wave))
            for each in wave:  # in order: a queue is first come, first served
                tasks.append(asyncio.create_task(self._ask(session, each, gate)))
                await asyncio.sleep(0)
            await gate.open_when_all_are_there()
            self.moved = time.monotonic()
            last = number == len(self.waves) - 1
            ending = await self._wait_for(
                self._all_ended if last else self._begun_until(number), _LOOK if last else _LOOK_BETWEEN
            )
            if ending is not None:
                return ending
        return "done"

    def _begun_until(self, number: int) -> Callable[[], bool]:
        return lambda: all(
            len(each.token_at) >= self.min_tokens_before_next_wave or _over(each)
            for wave in self.waves[: number + 1]
            for each in wave
        )

    def _all_ended(self) -> bool:
        if all(_over(each) for each in self.answers):
            return True
        if self.leave_after_tokens is None:
            return False
        open_ones = [each for each in self.answers if not _over(each)]
        short = sum(len(each.token_at) < self.leave_after_tokens for each in open_ones)
        if short and any(each.http_status is None for each in open_ones):
            return False  # what has not arrived yet does not wait there
        return short <= self.waiting

    async def _wait_for(self, ready: Callable[[], bool], look: float) -> Ending | None:
        """None when it came to pass, else why the burst ends here."""
        while not ready() or self.doubt is not None:
            if interrupts.waiting():
                return "late"  # whatever it is called: nobody sees it, as the caller gets a KeyboardInterrupt
            if not self.alive():
                return "died"
            now = time.monotonic()
            if self.doubt is not None and now - self.doubt > _AFTER_DEATH:
                self.doubt = None
                continue
            if now - self.moved > self.patience.stall:
                return "stalled"
            if now - self.began > self.patience.total:
                return "late"
            await self._look_again(look if self.doubt is None else min(look, 0.02))
        return None if self.alive() else "died"

    async def _look_again(self, look: float) -> None:
        """Return shortly after the next token or end, at the latest after `look` seconds."""
        self.stirred.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stirred.wait(), look)
        await asyncio.sleep(_LOOK_BETWEEN)  # tokens of a batch come together

    async def _ask(self, session: aiohttp.ClientSession, each: BurstAnswer, gate: _Gate) -> None:
        model_name = self.endpoint.model_name or ""
        call = self.api.encode(each.request, str(uuid.uuid4()), model_name, stream=self.stream, extras=self.extras)
        slices: list[bytes] = []
        each.sent_at = self._now()
        try:
            complete = await self._read(session, call, each, slices, gate)
        except aiohttp.ClientConnectorError as error:
            self._failed(each, "refused", str(error))
            return
        except (aiohttp.ClientError, OSError) as error:
            self._failed(each, "stream_broken", f"{type(error).__name__}: {error}")
            return
        finally:
            gate.arrive(each)
        self._understand(each, slices, complete)

    async def _read(
        self, session: aiohttp.ClientSession, call: Call, each: BurstAnswer, slices: list[bytes], gate: _Gate
    ) -> bool:
        headers = dict(call.headers)
        body: bytes | AsyncIterator[bytes] | None = call.body
        if gate.count > 1 and call.body:
            headers["content-length"] = str(len(call.body))
            body = self._held_back(call.body, each, gate)
        if self.endpoint.api_key is not None:
            headers["authorization"] = f"Bearer {self.endpoint.api_key.reveal()}"
        url = self.endpoint.url + call.path
        async with session.request(call.method, url, data=body, headers=headers, proxy=proxy()) as response:
            each.http_status = response.status
            async for piece in response.content.iter_any():
                slices.append(piece)
                if response.status == 200 and self.stream:
                    self._hear(each, piece)
        return True

    async def _held_back(self, body: bytes, each: BurstAnswer, gate: _Gate) -> AsyncIterator[bytes]:
        """All but the last byte, and that when the whole wave is there."""
        yield body[:-1]
        gate.arrive(each)
        await gate.opened.wait()
        each.sent_at = self._now()
        yield body[-1:]

    def _hear(self, each: BurstAnswer, piece: bytes) -> None:
        """Token events by their mark; which of them carried text is read at the end."""
        count = piece.count(b'"token"') or piece.count(b'"choices"')
        if count:
            each.token_at += [self._turn()] * count
            self._stir()

    def _turn(self) -> float:
        """One moment for all that is read in one turn of the event loop: in which order it was sent is not known."""
        if self.turn is None:
            self.turn = self._now()
            asyncio.get_running_loop().call_soon(self._end_turn)
        return self.turn

    def _end_turn(self) -> None:
        self.turn = None

    def _stir(self) -> None:
        self.moved = time.monotonic()
        self.stirred.set()

    def _understand(self, each: BurstAnswer, slices: list[bytes], complete: bool) -> None:
        answer = self.api.decode(each.http_status or 0, slices, stream=self.stream, complete=complete)
        each.finished_at = self._now()
        each.input_tokens, each.output_tokens = answer.input_tokens, answer.output_tokens
        if answer.error_kind is not None:
            self._failed(each, answer.error_kind, _words(b"".join(slices)))
            return
        if not each.token_at:
            each.token_at = [each.finished_at] * (answer.output_tokens or 1)
        self._stir()

    def _failed(self, each: BurstAnswer, kind: str, text: str) -> None:
        each.finished_at, each.error_kind, each.error = self._now(), kind, text.strip()[:400]
        self._stir()
        if kind in ("generation", "stream_broken", "incomplete", "refused") and self.doubt is None:
            self.doubt = time.monotonic()

    def _close(self, ending: Ending) -> None:
        """What is still open was left, as planned, or cut off by the end."""
        for each in self.answers:
            if each.finished_at is None and each.error_kind is None:
                if ending == "done":
                    each.left = True
                else:
                    each.error_kind = {"died": "stream_broken", "stalled": "timeout", "late": "timeout"}[ending]

    def _now(self) -> float:
        return time.monotonic() - self.began


def _but_interrupts(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A Ctrl-C that meets a request in the middle is the caller's, who sees it too; no fault of that request."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


def _over(each: BurstAnswer) -> bool:
    return each.finished_at is not None or each.error_kind is not None


def _words(body: bytes) -> str:
    """The service's own words in an error answer or an error event; else the end of what it sent."""
    at = body.rfind(b'{"error"')
    try:
        document = json.JSONDecoder().raw_decode(body[at:].decode("utf-8", "replace"))[0] if at >= 0 else {}
    except ValueError:
        document = {}
    error = document.get("error")
    told = error.get("message") if isinstance(error, dict) else error
    return told if isinstance(told, str) else body[-200:].decode("utf-8", "replace")


def _verified(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """What certificates are verified with."""
    return trusted() if endpoint.url.startswith("https://") else True
