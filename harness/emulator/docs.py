"""/docs and /api-doc/openapi.json: lists the routes and what their bodies take, from the bodies' own definitions."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.emulator import bodies, rust
from harness.emulator.serde import Anything, Flag, Many, Maybe, Real, Shape, Struct, Text, Whole

DOCS_PAGE = b"""<!DOCTYPE html>
<html lang="en">
  <head><meta charset="UTF-8"><title>Text Generation Inference (emulated)</title></head>
  <body>
    <h1>Text Generation Inference (emulated)</h1>
    <p>The specification is at <a href="/api-doc/openapi.json">/api-doc/openapi.json</a>.</p>
  </body>
</html>
"""

_TAG = "Text Generation Inference"
_ERRORS = {
    "422": ("Input validation error", "Input validation error", "validation"),
    "424": ("Generation Error", "Request failed during generation", "generation"),
    "429": ("Model is overloaded", "Model is overloaded", "overloaded"),
    "500": ("Incomplete generation", "Incomplete generation", "incomplete_generation"),
}
_BODIES = (bodies.COMPATIBLE, bodies.GENERATE, bodies.PARAMETERS, bodies.CHAT, bodies.COMPLETION)
_POST: list[tuple[str, str, Struct | None]] = [
    ("/", "Generate tokens, or a stream of tokens with `stream`", bodies.COMPATIBLE),
    ("/chat_tokenize", "Template and tokenize a chat", bodies.CHAT),
    ("/generate", "Generate tokens", bodies.GENERATE),
    ("/generate_stream", "Generate a stream of tokens", bodies.GENERATE),
    ("/invocations", "Generate tokens from a SageMaker request", None),
    ("/tokenize", "Tokenize inputs", bodies.GENERATE),
    ("/v1/chat/completions", "Answer a chat", bodies.CHAT),
    ("/v1/completions", "Complete prompts", bodies.COMPLETION),
]
_GET = [
    ("/health", "Health check method"),
    ("/info", "Text Generation Inference endpoint info"),
    ("/metrics", "Prometheus metrics scrape endpoint"),
    ("/v1/models", "Get model info"),
]


def _schema(shape: Shape) -> dict[str, Any]:
    if isinstance(shape, Maybe):
        return {**_schema(shape.inner), "nullable": True}
    if isinstance(shape, Text):
        return {"type": "string"}
    if isinstance(shape, Flag):
        return {"type": "boolean"}
    if isinstance(shape, Whole):
        return {"type": "integer", "format": "int32" if shape.name in ("u32", "i32") else "int64"}
    if isinstance(shape, Real):
        return {"type": "number", "format": "float"}
    if isinstance(shape, Many):
        return {"type": "array", "items": _schema(shape.inner)}
    if isinstance(shape, Struct):
        return _reference(shape) if shape in _BODIES else _object(shape)
    return {} if isinstance(shape, Anything) else {"type": "object"}


def _reference(struct: Struct) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{struct.name}"}


def _object(struct: Struct) -> dict[str, Any]:
    required = [each.name for each in struct.fields if not (each.has_default or isinstance(each.shape, Maybe))]
    properties = {each.name: _schema(each.shape) for each in struct.fields}
    return {"type": "object", **({"required": required} if required else {}), "properties": properties}


def _operation(path: str, summary: str, body: Struct | None) -> dict[str, Any]:
    schema = {"type": "object"} if body is None else _reference(body)
    return {
        "tags": [_TAG],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_") or "compat_generate",
        "requestBody": {"content": {"application/json": {"schema": schema}}, "required": True},
        "responses": {"200": {"description": "Generated Text"}, **_refusals()},
    }


def _refusals() -> dict[str, Any]:
    return {
        status: {
            "description": description,
            "content": {"application/json": {"example": {"error": error, "error_type": kind}}},
        }
        for status, (description, error, kind) in _ERRORS.items()
    }


@cache
def openapi(version: str) -> bytes:
    """The OpenAPI 3.0 document. Answers are not described."""
    paths: dict[str, Any] = {
        path: {"get": {"tags": [_TAG], "summary": summary, "responses": {"200": {"description": summary}}}}
        for path, summary in _GET
    }
    paths |= {path: {"post": _operation(path, summary, body)} for path, summary, body in _POST}
    licence = {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    return rust.dumps(
        {
            "openapi": "3.0.3",
            "info": {"title": _TAG, "license": licence, "version": version},
            "paths": dict(sorted(paths.items())),
            "components": {"schemas": {struct.name: _object(struct) for struct in _BODIES}},
            "tags": [{"name": _TAG, "description": "Hugging Face Text Generation Inference API"}],
        }
    )
