"""The list of routes (router/src/server.rs:2200-2288)."""

from __future__ import annotations

from dataclasses import asdict

from harness.emulator import rust
from harness.emulator.app import PLAIN, App, Route
from harness.emulator.bodies import CHAT, COMPATIBLE, COMPLETION, GENERATE, SAGEMAKER, VERTEX
from harness.emulator.chat import chat_completions, chat_tokenize
from harness.emulator.clouds import invocations, vertex
from harness.emulator.completions import completions
from harness.emulator.docs import DOCS_PAGE, openapi
from harness.emulator.http import Exchange
from harness.emulator.native import compatible, generate, generate_stream, tokenize


async def health(app: App, exchange: Exchange, _: object) -> None:
    """Waits for the shard: it can answer only between two forwards."""
    await app.engine.free()
    if app.slow_health is not None:
        await app.slow_health()
    if app.engine.dead:
        body = rust.dumps({"error": "unhealthy", "error_type": "healthcheck"})
        exchange.respond(503, [("content-type", "application/json")], body)
        return
    app.infer.healthy = True
    exchange.respond(200)


def info(app: App, exchange: Exchange, _: object) -> None:
    app.json(exchange, rust.dumps(asdict(app.info)))


def models(app: App, exchange: Exchange, _: object) -> None:
    name = app.info.model_id
    entry = {"id": name, "object": "model", "created": 0, "owned_by": name}
    app.json(exchange, rust.dumps({"object": "list", "data": [entry]}))


def metrics(app: App, exchange: Exchange, _: object) -> None:
    exchange.respond(200, PLAIN, app.metrics.render().encode())


def docs_redirect(app: App, exchange: Exchange, _: object) -> None:
    exchange.respond(303, [("location", "/docs/")])


def docs(app: App, exchange: Exchange, _: object) -> None:
    exchange.respond(200, [("content-type", "text/html")], DOCS_PAGE)


def specification(app: App, exchange: Exchange, _: object) -> None:
    app.json(exchange, openapi(app.info.version))


ROUTES = [
    Route("/", "POST", compatible, COMPATIBLE),
    Route("/generate", "POST", generate, GENERATE),
    Route("/generate_stream", "POST", generate_stream, GENERATE),
    Route("/v1/chat/completions", "POST", chat_completions, CHAT),
    Route("/v1/completions", "POST", completions, COMPLETION),
    Route("/vertex", "POST", vertex, VERTEX),
    Route("/invocations", "POST", invocations, SAGEMAKER),
    Route("/tokenize", "POST", tokenize, GENERATE),
    Route("/", "GET", health, open=True),
    Route("/chat_tokenize", "POST", chat_tokenize, CHAT, open=True),
    Route("/info", "GET", info, open=True),
    Route("/health", "GET", health, open=True),
    Route("/ping", "GET", health, open=True),
    Route("/metrics", "GET", metrics, open=True),
    Route("/v1/models", "GET", models, open=True),
    Route("/docs", "GET", docs_redirect, open=True),
    Route("/docs/", "GET", docs, open=True),
    Route("/api-doc/openapi.json", "GET", specification, open=True),
]
