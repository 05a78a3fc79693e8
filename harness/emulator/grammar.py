"""Grammars and tools: refuses what the router refuses, and makes a text that satisfies what it accepts.

The router turns a JSON schema into a regular expression for the shard; here the schema (or the pattern) is turned at
once into one text that matches, made of deterministic values.
"""

from __future__ import annotations

import json
import re
from typing import Any

from harness.emulator import rust
from harness.emulator.bodies import Function, Grammar, Tool, ToolChoice
from harness.emulator.json_reader import JsonError, Reader
from harness.emulator.pattern import sample
from harness.emulator.problems import TOOL, Refused, invalid
from harness.emulator.serde import ANYTHING, TEXT, Field, Flat, Struct

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_DEEPEST = 24


def check_grammar(grammar: Grammar, supported: bool) -> str:
    """A text that the grammar allows. Raises Refused with the router's text."""
    if not supported:
        raise invalid("grammar is not supported")
    if grammar.kind == "regex":
        return sample_pattern(grammar.value)
    schema = grammar.value
    if grammar.kind == "json":
        if isinstance(schema, str):
            schema = _parse(schema)
        elif not isinstance(schema, dict):
            raise invalid("grammar is not supported")
    _check_schema(schema)
    if not isinstance(schema, dict) or "properties" not in schema:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    try:
        # With the spaces that models like to put: they are optional in the router's pattern, and where a tool's name
        # ends a token of its own, the router can tell the name before the arguments.
        return json.dumps(sample_schema(schema, schema), ensure_ascii=False)
    except _Unsupported as error:
        raise invalid(f"cannot compile regex from schema: {error}") from None


def _parse(text: str) -> Any:
    reader = Reader(text.encode())
    try:
        value = ANYTHING.read(reader)
        if reader.peek() >= 0:
            reader.fail_peek("trailing characters")
    except JsonError as error:
        error.path = []
        raise invalid(f"grammar is not valid: {error.describe()}") from None
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _check_schema(schema: Any) -> None:
    """The commonest rules of the draft 2020-12 meta schema."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise invalid(f'grammar is not valid: {_shown(schema)} is not of types "boolean", "object"')
    kind = schema.get("type")
    if "type" in schema and not (kind in _TYPES if isinstance(kind, str) else isinstance(kind, list)):
        raise invalid(
            f"grammar is not valid: {_shown(kind)} is not valid under any of the schemas listed in the 'anyOf' keyword"
        )
    for key, wanted, name in (("properties", dict, "object"), ("required", list, "array"), ("enum", list, "array")):
        if key in schema and not isinstance(schema[key], wanted):
            raise invalid(f'grammar is not valid: {_shown(schema[key])} is not of type "{name}"')
    for inner in schema.get("properties", {}).values():
        _check_schema(inner)
    if "items" in schema:
        _check_schema(schema["items"])


class _Unsupported(Exception):
    """A schema that the router cannot turn into a regular expression."""


def _resolve(reference: Any, root: Any) -> Any:
    """What a local reference points to; a list is not looked into, as the router's library does not."""
    if not isinstance(reference, str):
        raise _Unsupported("'$ref' must be a string")
    base, found, fragment = reference.rpartition("#")
    if "#" in base:
        raise _Unsupported(f"Invalid reference format: {reference}")
    if found and base and base != root.get("$id"):
        raise _Unsupported(f"External references are not supported: {reference}")
    value = root
    for part in filter(None, fragment.split("/")):
        if not isinstance(value, dict) or part not in value:
            raise _Unsupported(f"Invalid reference path: {part}")
        value = value[part]
    return value


def sample_schema(schema: Any, root: Any, depth: int = 0) -> Any:
    """A value that the schema allows. Raises _Unsupported for a structure that says nothing about its value."""
    if depth > _DEEPEST or not isinstance(schema, dict) or not schema:
        return "word"
    if "properties" in schema:
        return {key: sample_schema(inner, root, depth + 1) for key, inner in schema["properties"].items()}
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return sample_schema(schema[key][0], root, depth + 1)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        return sample_schema(_resolve(schema["$ref"], root), root, depth + 1)
    if "type" in schema:
        return _sample_type(schema, root, depth)
    raise _Unsupported(
        f"Unsupported JSON Schema structure {_shown(schema)} \nMake sure it is valid to the JSON Schema specification"
        " and check if it's supported by Outlines.\nIf it should be supported, please open an issue."
    )


def _sample_type(schema: dict[str, Any], root: Any, depth: int) -> Any:
    kind = schema["type"]
    if not isinstance(kind, str):
        raise _Unsupported("'type' must be a string")
    if kind == "string":
        return _sample_string(schema)
    if kind == "array":
        count = max(1, schema.get("minItems", 1))
        return [sample_schema(schema.get("items", {"type": "string"}), root, depth + 1) for _ in range(count)]
    return {"integer": 7, "number": 1.5, "boolean": True, "null": None, "object": {}}[kind]


def _sample_string(schema: dict[str, Any]) -> str:
    low, high = schema.get("minLength", 1), schema.get("maxLength", 64)
    if "minLength" in schema or "maxLength" in schema:
        if high < low:
            raise _Unsupported("maxLength must be greater than or equal to minLength")
        return ("paper river morning light " * (1 + low // 24))[: max(low, min(high, 11))]
    if "pattern" in schema:
        return sample_pattern(schema["pattern"])
    formats = {
        "date": "2024-05-01",
        "time": "12:00:00Z",
        "date-time": "2024-05-01T12:00:00Z",
        "uuid": "123e4567-e89b-12d3-a456-426614174000",
    }
    if "format" in schema and schema["format"] not in formats:
        raise _Unsupported(f"Format {schema['format']} is not supported by Outlines")
    return formats.get(schema.get("format", ""), "paper")


def sample_pattern(pattern: str) -> str:
    """A text that a regular expression matches; a plain word for one that cannot be read, as nobody notices."""
    try:
        return sample(pattern)
    except (re.error, ValueError, RecursionError, OverflowError):
        return "the"


def tool_grammar(tools: list[Tool], choice: ToolChoice) -> tuple[list[Tool], Grammar] | None:
    """The tools that the prompt lists and the grammar of a call; None when no tool is to be called. Raises Refused."""
    if choice.kind == "none":
        return None
    if choice.kind == "function":
        used = [tool for tool in tools if tool.function.name == choice.name][:1]
        if not used:
            raise Refused(TOOL, f"Tool with name {choice.name} not found")
    elif choice.kind == "auto":
        text = "Open ended response with no specific tool selected"
        used = [*tools, Tool("function", Function("no_tool", {"type": "object"}, text))]
    else:
        used = tools
    if not used:
        return None
    functions = {tool.function.name: _call_schema(tool) for tool in used}
    references = [{"$ref": f"#/$functions/{tool.function.name}"} for tool in used]
    schema = {"$functions": functions, "properties": {"function": {"anyOf": references}}}
    return used, Grammar("json", schema)


def _call_schema(tool: Tool) -> dict[str, Any]:
    function = tool.function
    properties: dict[str, Any] = {"_name": {"type": "string", "const": function.name}}
    required: list[Any] = ["_name"]
    schema: dict[str, Any] = {"description": function.description or ""}
    if isinstance(function.arguments, dict):
        given = function.arguments.get("properties")
        properties |= given if isinstance(given, dict) else {}
        needed = function.arguments.get("required")
        required += needed if isinstance(needed, list) else []
        schema["additionalProperties"] = function.arguments.get("additionalProperties") == "true"
    return {**schema, "properties": properties, "required": required}


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a tool call as the model wrote it. Raises Refused when it is not such JSON."""
    try:
        value = _call(text)
    except JsonError as error:
        error.path = []
        raise Refused(TOOL, f"Failed to parse generated text: {error.describe()} {rust.string(text)}") from None
    arguments = dict(value)
    return arguments.pop("_name"), arguments


_CALL = Struct("Call", [Field("function", Flat("ToolCall", Field("_name", TEXT)))], dict)


def _call(text: str) -> dict[str, Any]:
    reader = Reader(text.encode())
    value = _CALL.read(reader)
    if reader.peek() >= 0:
        reader.fail_peek("trailing characters")
    return value


def is_call(text: str) -> dict[str, Any] | None:
    """The call that this text is, if it is one already."""
    try:
        return _call(text)
    except JsonError:
        return None
