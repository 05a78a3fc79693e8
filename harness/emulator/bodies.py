"""Request bodies of every route: fields, defaults, and how serde reads them.

Field order, types and defaults are those of router/src/lib.rs, sagemaker.rs and vertex.rs: a field without a default
that is not an Option refuses `null` and must be there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from harness.emulator.serde import (
    ANYTHING,
    FLAG,
    I32,
    REAL,
    TEXT,
    U32,
    U64,
    USIZE,
    AdjacentlyTagged,
    Converted,
    Field,
    Flattened,
    InternallyTagged,
    Many,
    Maybe,
    Shape,
    Struct,
    Unit,
    Untagged,
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """kind: json, regex or json_schema. value: a JSON value, a pattern, or the schema itself."""

    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class Parameters:
    """`parameters` of /generate. Tokens, and probabilities between 0 and 1."""

    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    return_full_text: bool | None = None
    stop: list[str] = field(default_factory=list)
    truncate: int | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt to answer, whatever route it came by. special_tokens: put `<s>` before the prompt."""

    inputs: str
    parameters: Parameters
    special_tokens: bool = True
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A function as a tool offers it or a message calls it. arguments: any JSON value."""

    name: str
    arguments: Any
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    type: str
    function: Function


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    type: str
    function: Function


@dataclass(frozen=True, slots=True)
class Message:
    """content: text with images as markdown. tool_calls: of an earlier answer, instead of content."""

    role: str
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """kind: auto, none, required or function; name: of the function."""

    kind: str = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """Body of /v1/chat/completions."""

    model: str | None
    messages: list[Message]
    frequency_penalty: float | None
    logprobs: bool
    top_logprobs: int | None
    max_tokens: int | None
    presence_penalty: float | None
    stop: list[str]
    stream: bool
    seed: int | None
    temperature: float | None
    top_p: float | None
    tools: list[Tool] | None
    tool_prompt: str | None
    tool_choice: ToolChoice
    response_format: Grammar | None
    include_usage: bool

    def without_tools(self) -> Chat:
        return replace(self, tools=None, response_format=None)


@dataclass(frozen=True, slots=True)
class Completion:
    """Body of /v1/completions."""

    model: str | None
    prompts: list[str]
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stream: bool
    seed: int | None
    suffix: str | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    stop: list[str]


def _none() -> None:
    return None


def _false() -> bool:
    return False


def _optional(name: str, shape: Shape, alias: str | None = None) -> Field:
    return Field(name, Maybe(shape), _none, alias)


GRAMMAR = AdjacentlyTagged(
    "GrammarType",
    {
        "json": ANYTHING,
        "json_object": ANYTHING,
        "regex": TEXT,
        "json_schema": Struct(
            "JsonSchemaConfig", [Field("name", Maybe(TEXT)), Field("schema", ANYTHING)], lambda name, schema: schema
        ),
    },
    lambda variant, value: Grammar("json" if variant == "json_object" else variant, value),
)

PARAMETERS = Struct(
    "GenerateParameters",
    [
        _optional("best_of", USIZE),
        _optional("temperature", REAL),
        _optional("repetition_penalty", REAL),
        _optional("frequency_penalty", REAL),
        _optional("top_k", I32),
        _optional("top_p", REAL),
        _optional("typical_p", REAL),
        Field("do_sample", FLAG, _false),
        _optional("max_new_tokens", U32),
        _optional("return_full_text", FLAG),
        Field("stop", Many(TEXT), list),
        _optional("truncate", USIZE),
        Field("watermark", FLAG, _false),
        Field("details", FLAG, _false),
        Field("decoder_input_details", FLAG, _false),
        _optional("seed", U64),
        _optional("top_n_tokens", U32),
        _optional("grammar", GRAMMAR),
        _optional("adapter_id", TEXT),
    ],
    Parameters,
)


def _sampling() -> Parameters:
    """What a request without any `parameters` gets: it samples, one with `{}` does not."""
    return Parameters(do_sample=True)


GENERATE = Struct("GenerateRequest", [Field("inputs", TEXT), Field("parameters", PARAMETERS, _sampling)], Ask)

COMPATIBLE = Struct(
    "CompatGenerateRequest",
    [Field("inputs", TEXT), Field("parameters", PARAMETERS, _sampling), Field("stream", FLAG, _false)],
    lambda inputs, parameters, stream: Ask(inputs, parameters, True, stream),
)

_FUNCTION = Struct(
    "FunctionDefinition",
    [_optional("description", TEXT), Field("name", TEXT), Field("arguments", ANYTHING, alias="parameters")],
    lambda description, name, arguments: Function(name, arguments, description),
)

_TOOL = Struct("Tool", [Field("type", TEXT), Field("function", _FUNCTION)], Tool)
_TOOL_CALL = Struct("ToolCall", [Field("id", TEXT), Field("type", TEXT), Field("function", _FUNCTION)], ToolCall)

_PART = InternallyTagged(
    {
        "text": Struct("MessageChunk", [Field("text", TEXT)], str),
        "image_url": Struct(
            "MessageChunk", [Field("image_url", Struct("Url", [Field("url", TEXT)], str))], lambda url: f"![]({url})"
        ),
    }
)

_CONTENT = Untagged("MessageContent", (TEXT, Converted(Many(_PART), "".join)))

_BODY = Untagged(
    "MessageBody",
    (
        Struct("Content", [Field("content", _CONTENT)], lambda content: (content, ())),
        Struct("Tool", [Field("tool_calls", Many(_TOOL_CALL))], lambda calls: (None, tuple(calls))),
    ),
)

_MESSAGE = Flattened(
    "Message",
    (Field("role", TEXT), _optional("name", TEXT)),
    _BODY,
    lambda role, name, body: Message(role, body[0], body[1], name),
)

_KINDS = ("none", "auto", "required")
_NAMED = Struct("FunctionName", [Field("name", TEXT)], str)
_CHOICE = Untagged(
    "ToolTypeDeserializer",
    (
        Converted(Unit(), lambda _: ToolChoice()),
        Converted(TEXT, lambda text: ToolChoice(text) if text in _KINDS else ToolChoice("function", text)),
        InternallyTagged(
            {"function": Struct("TypedChoice", [Field("function", _NAMED)], lambda name: ToolChoice("function", name))}
        ),
    ),
)


def _chat(*values: Any) -> Chat:
    named = dict(zip((each.name for each in _CHAT_FIELDS), values, strict=True))
    for unused in ("logit_bias", "n"):
        del named[unused]
    named["include_usage"] = named.pop("stream_options")
    named["stop"] = named["stop"] or []
    named["logprobs"] = bool(named["logprobs"])
    return Chat(**named)


_CHAT_FIELDS = [
    Field("model", Maybe(TEXT)),
    Field("messages", Many(_MESSAGE)),
    _optional("frequency_penalty", REAL),
    _optional("logit_bias", Many(REAL)),
    _optional("logprobs", FLAG),
    _optional("top_logprobs", U32),
    _optional("max_tokens", U32, alias="max_completion_tokens"),
    _optional("n", U32),
    _optional("presence_penalty", REAL),
    _optional("stop", Many(TEXT)),
    Field("stream", FLAG, _false),
    Field("seed", Maybe(U64)),
    _optional("temperature", REAL),
    _optional("top_p", REAL),
    _optional("tools", Many(_TOOL)),
    _optional("tool_prompt", TEXT),
    Field("tool_choice", _CHOICE, ToolChoice),
    _optional("response_format", GRAMMAR),
    Field("stream_options", Struct("StreamOptions", [Field("include_usage", FLAG, _false)], bool), _false),
]

CHAT = Struct("ChatRequest", _CHAT_FIELDS, _chat)


def _prompts(value: str | list[str]) -> list[str]:
    if value == []:
        raise ValueError("Empty array detected. Do not use an empty array for the prompt.")
    return [value] if isinstance(value, str) else value


def _completion(*values: Any) -> Completion:
    return Completion(*(*values[:-1], values[-1] or []))


COMPLETION = Struct(
    "CompletionRequest",
    [
        Field("model", Maybe(TEXT)),
        Field("prompt", Converted(Untagged("PromptDeserializer", (TEXT, Many(TEXT))), _prompts)),
        _optional("max_tokens", U32),
        _optional("temperature", REAL),
        _optional("top_p", REAL),
        Field("stream", FLAG, _false),
        Field("seed", Maybe(U64)),
        _optional("suffix", TEXT),
        _optional("repetition_penalty", REAL),
        _optional("frequency_penalty", REAL),
        _optional("stop", Many(TEXT)),
    ],
    _completion,
)

SAGEMAKER = Untagged("SagemakerRequest", (COMPATIBLE, CHAT, COMPLETION))


def _instance(inputs: str, parameters: Parameters | None) -> Ask:
    """Of an instance's parameters only the length and the seed count (vertex.rs)."""
    given = parameters or Parameters()
    own = Parameters(
        do_sample=True, max_new_tokens=given.max_new_tokens, seed=given.seed, details=True, decoder_input_details=True
    )
    return Ask(inputs, own)


_INSTANCE = Struct("GenerateVertexInstance", [Field("inputs", TEXT), Field("parameters", Maybe(PARAMETERS))], _instance)

VERTEX = Struct("VertexRequest", [Field("instances", Many(Untagged("VertexInstance", (_INSTANCE, CHAT))))], list)
