"""Two cloud providers' routes: /vertex and SageMaker's /invocations."""

from __future__ import annotations

import asyncio
from typing import Any

from harness.emulator import rust
from harness.emulator.app import JSON, App
from harness.emulator.bodies import Ask, Chat, Completion
from harness.emulator.chat import chat_ask, chat_completions
from harness.emulator.completions import completions
from harness.emulator.http import Exchange
from harness.emulator.native import compatible, generate_internal
from harness.emulator.problems import VALIDATION, Refused

_VERTEX_EMPTY = {"error": "Input validation error", "error_type": "Input validation error"}
_VERTEX_FAILED = {"error": "Incomplete generation", "error_type": "Incomplete generation"}


async def vertex(app: App, exchange: Exchange, instances: list[Ask | Chat]) -> None:
    """All instances at once; any failure is the same 500."""
    app.metrics.count("tgi_request_count")
    if not instances:
        exchange.respond(VALIDATION.status, JSON, rust.dumps(_VERTEX_EMPTY))
        return
    asks = [each if isinstance(each, Ask) else chat_ask(app, each)[0] for each in instances]
    results = await asyncio.gather(
        *(generate_internal(app, ask, "vertex_compatibility") for ask in asks), return_exceptions=True
    )
    texts = []
    for ask, result in zip(asks, results, strict=True):
        if isinstance(result, Refused):
            exchange.respond(500, JSON, rust.dumps(_VERTEX_FAILED))
            return
        if isinstance(result, BaseException):
            raise result
        texts.append((ask.inputs if ask.parameters.return_full_text else "") + result.answer.text)
    app.json(exchange, rust.dumps({"predictions": texts}))


def invocations(app: App, exchange: Exchange, body: Ask | Chat | Completion) -> Any:
    """SageMaker's route: whichever of three bodies fits."""
    if isinstance(body, Ask):
        return compatible(app, exchange, body)
    if isinstance(body, Chat):
        return chat_completions(app, exchange, body)
    return completions(app, exchange, body)
