"""What all routes share: the served model, and the checks of a request before its route sees it.

The order is the router's: path (404), key (401), method (405), content type (415), size (413), JSON (400, 422).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from harness.emulator.bodies import Ask
from harness.emulator.engine import Engine
from harness.emulator.http import Connection, Exchange
from harness.emulator.infer import FinishedAnswer, Infer
from harness.emulator.json_reader import JsonError
from harness.emulator.log import Log
from harness.emulator.metrics import Metrics
from harness.emulator.problems import Refused
from harness.emulator.request_timings import Timings
from harness.emulator.serde import Shape, read_body
from harness.emulator.sse import EventStream, Shaper
from harness.emulator.template import ChatTemplate

JSON = [("content-type", "application/json")]
PLAIN = [("content-type", "text/plain; charset=utf-8")]
VERSION = "3.3.6-dev0"
_VARY = ("vary", "origin, access-control-request-method, access-control-request-headers")

Handler = Callable[["App", Exchange, Any], "Coroutine[Any, Any, None] | None"]


@dataclass(frozen=True)
class Info:
    """What /info tells; keys in its order."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str = "text-generation-router"
    version: str = VERSION
    sha: str | None = None
    docker_label: str | None = "harness-emulator"

    @property
    def fingerprint(self) -> str:
        return f"{self.version}-{self.docker_label or 'native'}"


@dataclass(frozen=True)
class Web:
    """How the HTTP side is set up. origins: allowed ones, None for any. return_full_text: default of POST /."""

    compute_type: str = "gpu+optimized"
    api_key: str | None = None
    payload_limit: int = 2_000_000
    origins: tuple[str, ...] | None = None
    return_full_text: bool = True


@dataclass(frozen=True)
class Route:
    """One path. shape: of the JSON body of POST. open: no key needed even when one is set."""

    path: str
    method: str
    handler: Handler
    shape: Shape | None = None
    open: bool = False


class App:
    """The application behind all connections."""

    def __init__(
        self,
        routes: list[Route],
        infer: Infer,
        info: Info,
        web: Web,
        template: ChatTemplate | None,
        shaper: Callable[[], Shaper | None] = lambda: None,
    ) -> None:
        self.infer, self.info, self.web, self.template = infer, info, web, template
        self.metrics: Metrics = infer.metrics
        self.engine: Engine = infer.engine
        self.log: Log = infer.log
        self.payload_limit = web.payload_limit
        self.connections: set[Connection] = set()
        self.slow_health: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._shaper = shaper
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._routes.setdefault(route.path, {})[route.method] = route

    # What http.Connection asks.

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def cross_origin(self, exchange: Exchange) -> list[tuple[str, str]]:
        allowed = self._allowed_origin(exchange)
        return [_VARY, *([("access-control-allow-origin", allowed)] if allowed else [])]

    def _allowed_origin(self, exchange: Exchange) -> str | None:
        if self.web.origins is None:
            return "*"
        origin = exchange.headers.get("origin")
        return origin if origin in self.web.origins else None

    def early(self, exchange: Exchange) -> bool:
        if exchange.method == "OPTIONS":
            self._preflight(exchange)
            return True
        methods = self._routes.get(exchange.path)
        if methods is None:
            exchange.respond(404)
            return True
        route = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if self._locked(exchange, list(methods.values()) if route is None else [route]):
            exchange.respond(401, last=[] if route else [("allow", self._allow(methods))])
            return True
        if route is None:
            exchange.respond(405, last=[("allow", self._allow(methods))])
            return True
        if route.shape is not None and not _is_json(exchange.headers.get("content-type", "")):
            exchange.respond(415, PLAIN, b"Expected request with `Content-Type: application/json`")
            return True
        return False

    def _locked(self, exchange: Exchange, routes: list[Route]) -> bool:
        """Whether a key is needed and not there. A path that also has an open method answers wrong ones openly."""
        if self.web.api_key is None or any(route.open for route in routes):
            return False
        return exchange.headers.get("authorization", "").lower() != f"bearer {self.web.api_key}".lower()

    def _allow(self, methods: dict[str, Route]) -> str:
        return ",".join("GET,HEAD" if method == "GET" else method for method in methods)

    def _preflight(self, exchange: Exchange) -> None:
        """Any OPTIONS is answered, whatever the path."""
        methods = self._routes.get(exchange.path)
        last = [("access-control-allow-methods", "GET,POST"), ("access-control-allow-headers", "content-type")]
        exchange.respond(200, last=[*last, *([("allow", self._allow(methods))] if methods else [])])

    def unreadable(self, exchange: Exchange, *, too_large: bool) -> None:
        if too_large:
            exchange.respond(413, PLAIN, b"Failed to buffer the request body: length limit exceeded")
        else:
            exchange.respond(400, PLAIN, b"Failed to buffer the request body: error reading a body from connection")

    def handle(self, exchange: Exchange) -> None:
        route = self._routes[exchange.path]["GET" if exchange.method == "HEAD" else exchange.method]
        body = None
        if route.shape is not None:
            try:
                body = read_body(route.shape, exchange.body)
            except JsonError as error:
                what = (
                    "deserialize the JSON body into the target type" if error.data else "parse the request body as JSON"
                )
                status = 422 if error.data else 400
                exchange.respond(status, PLAIN, f"Failed to {what}: {error.describe()}".encode())
                return
        work = route.handler(self, exchange, body)
        if work is not None:
            self._run(exchange, work)

    def _run(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._answered(exchange, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def gone() -> None:
            task.cancel()

        exchange.on_gone = gone

    async def _answered(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refused as refused:
            self.refuse(exchange, refused)

    # What the routes ask.

    def refuse(self, exchange: Exchange, refused: Refused) -> None:
        """A plain error answer."""
        exchange.respond(refused.kind.status, JSON, refused.native())

    def json(self, exchange: Exchange, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        exchange.respond(200, [*JSON, *(headers or [])], body)

    def stream(self, exchange: Exchange, characters: int) -> EventStream:
        """Start a streamed answer. characters: of the prompt."""
        headers = [
            ("x-compute-type", self.web.compute_type),
            ("x-compute-characters", str(characters)),
            ("x-accel-buffering", "no"),
        ]
        return EventStream(exchange, headers, self._shaper())

    def succeeded(self, name: str, ask: Ask, answer: FinishedAnswer, entered: float, now: float, line: int) -> Timings:
        """Count and log a finished answer; its timings."""
        timings = Timings.of(entered, answer.queued, answer.started, now, answer.generated_tokens)
        metrics = self.metrics
        metrics.count("tgi_request_success")
        metrics.record("tgi_request_duration", timings.total)
        metrics.record("tgi_request_validation_duration", timings.validation)
        metrics.record("tgi_request_queue_duration", timings.queue)
        metrics.record("tgi_request_inference_duration", timings.inference)
        metrics.record("tgi_request_mean_time_per_token_duration", timings.per_token)
        metrics.record("tgi_request_generated_tokens", answer.generated_tokens)
        if self.log.shows("INFO"):
            self.log.success(name, ask.parameters, timings, answer.seed, line)
        return timings


def _is_json(content_type: str) -> bool:
    """As axum reads it: application/json, or any subtype that ends in +json; parameters do not matter."""
    kind, slash, subtype = content_type.partition(";")[0].lower().partition("/")
    return bool(slash) and kind == "application" and (subtype == "json" or subtype.endswith("+json"))
