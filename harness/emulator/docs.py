"""/docs and /api-doc/openapi.json: describes the routes, from the request bodies' own definitions."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.emulator import bodies, rust
from harness.emulator.serde import Anything, Field, Flag, Many, Maybe, Real, Shape, Struct, Text, Whole

DOCS_PAGE = b"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>Swagger UI</title>
    <link rel="stylesheet" type="text/css" href="./swagger-ui.css" />
  </head>
  <body>
    <h1>Text Generation Inference (emulated)</h1>
    <p>The specification is at <a href="/api-doc/openapi.json">/api-doc/openapi.json</a>.</p>
    <script src="./swagger-initializer.js" charset="UTF-8"></script>
  </body>
</html>
"""

# A transparent pixel.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364f80f0001050101277ae364"
    "0000000049454e44ae426082"
)

# What the page of the real server loads; here it is a page without a viewer.
ASSETS = {
    "index.html": ("text/html", DOCS_PAGE),
    "swagger-ui.css": ("text/css", b"body{font-family:sans-serif;margin:2em}\n"),
    "index.css": ("text/css", b"html{box-sizing:border-box}\n"),
    "swagger-initializer.js": ("text/javascript", b'window.specification = "/api-doc/openapi.json";\n'),
    "favicon-16x16.png": ("image/png", _PIXEL),
    "favicon-32x32.png": ("image/png", _PIXEL),
    "oauth2-redirect.html": ("text/html", b"<!DOCTYPE html>\n"),
    "swagger-ui-bundle.js": ("text/javascript", b""),
    "swagger-ui-standalone-preset.js": ("text/javascript", b""),
}

_TAG = "Text Generation Inference"
_ERRORS = {
    "422": ("Input validation error", "Input validation error", "validation"),
    "424": ("Generation Error", "Request failed during generation", "generation"),
    "429": ("Model is overloaded", "Model is overloaded", "overloaded"),
    "500": ("Incomplete generation", "Incomplete generation", "incomplete_generation"),
}
_POST: list[tuple[str, str, Any]] = [
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
        return {"$ref": f"#/components/schemas/{shape.name}"}
    return {} if isinstance(shape, Anything) else {"type": "object"}


def _component(struct: Struct) -> dict[str, Any]:
    required = [each.name for each in struct.fields if not _optional(each)]
    properties = {each.name: _schema(each.shape) for each in struct.fields}
    return {"type": "object", **({"required": required} if required else {}), "properties": properties}


def _optional(field: Field) -> bool:
    return field.has_default or isinstance(field.shape, Maybe)


def _operation(path: str, summary: str, shape: Struct | None) -> dict[str, Any]:
    body = {"$ref": f"#/components/schemas/{shape.name}"} if shape else {"type": "object"}
    responses: dict[str, Any] = {"200": {"description": "Generated Text"}}
    for status, (description, error, kind) in _ERRORS.items():
        example = {"error": error, "error_type": kind}
        schema = {"$ref": "#/components/schemas/ErrorResponse"}
        responses[status] = {
            "description": description,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    return {
        "tags": [_TAG],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_") or "compat_generate",
        "requestBody": {"content": {"application/json": {"schema": body}}, "required": True},
        "responses": responses,
    }


# The answers and the parts of requests, as `name: type` pairs; `?` marks what may be absent or null, `[]` a list.
_PARTS = {
    "BestOfSequence": "generated_text:string finish_reason:FinishReason generated_tokens:integer seed:integer?"
    " prefill:PrefillToken[] tokens:Token[] top_tokens:Token[]",
    "ChatCompletion": "id:string created:integer model:string system_fingerprint:string"
    " choices:ChatCompletionComplete[] usage:Usage",
    "ChatCompletionChoice": "index:integer delta:ChatCompletionDelta logprobs:ChatCompletionLogprobs?"
    " finish_reason:string?",
    "ChatCompletionChunk": "id:string created:integer model:string system_fingerprint:string"
    " choices:ChatCompletionChoice[] usage:Usage?",
    "ChatCompletionComplete": "index:integer message:OutputMessage logprobs:ChatCompletionLogprobs?"
    " finish_reason:string",
    "ChatCompletionLogprob": "token:string logprob:number top_logprobs:ChatCompletionTopLogprob[]",
    "ChatCompletionLogprobs": "content:ChatCompletionLogprob[]",
    "ChatCompletionTopLogprob": "token:string logprob:number",
    "ChatTokenizeResponse": "tokenize_response:TokenizeResponse templated_text:string",
    "Chunk": "id:string created:integer choices:CompletionComplete[] model:string system_fingerprint:string",
    "CompletionComplete": "index:integer text:string logprobs:number[]? finish_reason:string",
    "CompletionFinal": "id:string created:integer model:string system_fingerprint:string"
    " choices:CompletionComplete[] usage:Usage",
    "DeltaToolCall": "index:integer id:string type:string function:Function",
    "Details": "finish_reason:FinishReason generated_tokens:integer seed:integer? prefill:PrefillToken[]"
    " tokens:Token[] best_of_sequences:BestOfSequence[]? top_tokens:Token[]",
    "ErrorResponse": "error:string error_type:string",
    "Function": "name:string? arguments:string",
    "FunctionDefinition": "description:string? name:string arguments:object",
    "FunctionName": "name:string",
    "GenerateResponse": "generated_text:string details:Details?",
    "Info": "model_id:string model_sha:string? model_pipeline_tag:string? max_concurrent_requests:integer"
    " max_best_of:integer max_stop_sequences:integer max_input_tokens:integer max_total_tokens:integer"
    " validation_workers:integer max_client_batch_size:integer router:string version:string sha:string?"
    " docker_label:string?",
    "JsonSchemaConfig": "name:string? schema:object",
    "Message": "role:string content:MessageContent? tool_calls:ToolCall[]? name:string?",
    "ModelInfo": "id:string object:string created:integer owned_by:string",
    "PrefillToken": "id:integer text:string logprob:number?",
    "SimpleToken": "id:integer text:string start:integer stop:integer",
    "StreamDetails": "finish_reason:FinishReason generated_tokens:integer seed:integer? input_length:integer",
    "StreamOptions": "include_usage:boolean?",
    "StreamResponse": "index:integer token:Token top_tokens:Token[] generated_text:string? details:StreamDetails?",
    "TextMessage": "role:string content:string tool_call_id:string?",
    "Token": "id:integer text:string logprob:number special:boolean",
    "Tool": "type:string function:FunctionDefinition",
    "ToolCall": "id:string type:string function:FunctionDefinition",
    "ToolCallDelta": "role:string tool_calls:DeltaToolCall[]",
    "ToolCallMessage": "role:string tool_calls:ToolCall[]",
    "Url": "url:string",
    "Usage": "prompt_tokens:integer completion_tokens:integer total_tokens:integer",
}
_CHOICES = {
    "ChatCompletionDelta": "TextMessage ToolCallDelta",
    "Completion": "Chunk CompletionFinal",
    "GrammarType": "object",
    "MessageBody": "MessageContent ToolCall[]",
    "MessageChunk": "object",
    "MessageContent": "string MessageChunk[]",
    "OutputMessage": "TextMessage ToolCallMessage",
    "Prompt": "string string[]",
    "SagemakerRequest": "CompatGenerateRequest ChatRequest CompletionRequest",
    "SagemakerResponse": "GenerateResponse ChatCompletion CompletionFinal",
    "SagemakerStreamResponse": "StreamResponse ChatCompletionChunk Chunk",
    "ToolChoice": "string object",
}


def _named(name: str) -> dict[str, Any]:
    if name.endswith("[]"):
        return {"type": "array", "items": _named(name[:-2])}
    if name in ("string", "integer", "number", "boolean", "object"):
        return {"type": name}
    return {"$ref": f"#/components/schemas/{name}"}


def _part(text: str) -> dict[str, Any]:
    pairs = [each.split(":") for each in text.split()]
    properties = {
        key: {**_named(kind.rstrip("?")), **({"nullable": True} if kind.endswith("?") else {})} for key, kind in pairs
    }
    required = [key for key, kind in pairs if not kind.endswith("?")]
    return {"type": "object", **({"required": required} if required else {}), "properties": properties}


def _components() -> dict[str, Any]:
    structs = [bodies.COMPATIBLE, bodies.GENERATE, bodies.PARAMETERS, bodies.CHAT, bodies.COMPLETION]
    schemas: dict[str, Any] = {struct.name: _component(struct) for struct in structs}
    schemas |= {name: _part(text) for name, text in _PARTS.items()}
    schemas |= {name: {"oneOf": [_named(each) for each in text.split()]} for name, text in _CHOICES.items()}
    schemas["FinishReason"] = {"type": "string", "enum": ["length", "eos_token", "stop_sequence"]}
    schemas["TokenizeResponse"] = _named("SimpleToken[]")
    return dict(sorted(schemas.items()))


@cache
def openapi(version: str) -> bytes:
    """The OpenAPI 3.0 document."""
    paths: dict[str, Any] = {
        path: {"get": {"tags": [_TAG], "summary": summary, "responses": {"200": {"description": summary}}}}
        for path, summary in _GET
    }
    paths |= {path: {"post": _operation(path, summary, shape)} for path, summary, shape in _POST}
    licence = {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    return rust.dumps(
        {
            "openapi": "3.0.3",
            "info": {"title": _TAG, "license": licence, "version": version},
            "paths": dict(sorted(paths.items())),
            "components": {"schemas": _components()},
            "tags": [{"name": _TAG, "description": "Hugging Face Text Generation Inference API"}],
        }
    )
