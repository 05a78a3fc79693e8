"""Grammars: what is refused, and that what is said satisfies what was asked."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from harness.emulator.bodies import Function, Grammar, Tool, ToolChoice
from harness.emulator.grammar import check_grammar, is_call, parse_call, sample_pattern, tool_grammar
from harness.emulator.problems import Refused

SCHEMAS: list[dict[str, Any]] = [
    {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]},
    {"properties": {}},
    {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "number"}}},
    {"properties": {"a": {"enum": ["x", "y"]}, "b": {"const": 5}, "c": {"anyOf": [{"type": "null"}]}}},
    {"properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}}},
    {"properties": {"a": {"type": "string", "format": "date"}, "b": {"type": "string", "pattern": "^[0-9]{3}$"}}},
    {"properties": {"a": {"type": "string", "minLength": 40, "maxLength": 50}, "b": {"type": "boolean"}}},
    {"properties": {"a": {"properties": {"b": {"type": "string"}}}}},
]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("kind", ["json", "json_schema"])
def test_what_is_said_satisfies_the_schema(schema: dict[str, Any], kind: str) -> None:
    """The text that stands for the model's answer is valid by the schema that was given."""
    jsonschema.validate(json.loads(check_grammar(Grammar(kind, schema), True)), schema)


PATTERNS = [
    *("", "a|b", "(yes|no)+", "((a|b)c){2}", "(?:q)", "(?P<x>a)b", "(?i:abc)", "a(?#note)b", "(?=a)a", r"^\bfoo\b$"),
    *("[0-9]{3}", "[^ab]x?", "[^a-z]+", r"[]a\]]", r"[\]x]", r"[\u00e9]", r"\d+-\w+", r"\.\x41\u00e9\101\n", ".."),
    *("x{2,4}", "x{,3}y", "a{0}b", "a{0,0}b", "a{}", "a{2", "{", "a*?b+?"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_said_matches_the_pattern(pattern: str) -> None:
    """The text for a regular expression matches it as a whole."""
    assert re.fullmatch(pattern, sample_pattern(pattern))


@pytest.mark.parametrize("pattern", ["(", "a{4294967296}", "(a)(?(1)b|c)", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_cannot_be_read_gives_a_word(pattern: str) -> None:
    """Not valid, beyond what Python reads, or of a kind that is not read here."""
    assert sample_pattern(pattern) == "the"


def test_a_repetition_without_measure_is_cut() -> None:
    """No answer is so long; the memory of this machine is not filled with one."""
    assert len(sample_pattern("(?:a{60000}){60000}")) < 1 << 18


REFUSED = [
    ("json", 5, "grammar is not supported"),
    ("json", {"type": "object"}, "grammar is not valid: Grammar must have a 'properties' field"),
    ("json", "{oops", "grammar is not valid: key must be a string at line 1 column 2"),
    ("json", {"properties": 5}, 'grammar is not valid: 5 is not of type "object"'),
    (
        "json",
        {"properties": {"a": {"type": "strange"}}},
        "grammar is not valid: \"strange\" is not valid under any of the schemas listed in the 'anyOf' keyword",
    ),
    (
        "json",
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        "cannot compile regex from schema: Invalid reference path: $defs",
    ),
    (
        "json",
        {"properties": {"a": {"type": "string", "format": "strange"}}},
        "cannot compile regex from schema: Format strange is not supported by Outlines",
    ),
]


@pytest.mark.parametrize(("kind", "value", "text"), REFUSED)
def test_a_grammar_that_cannot_be_used_is_refused_in_the_routers_words(kind: str, value: Any, text: str) -> None:
    """Each wrong grammar and its message."""
    with pytest.raises(Refused) as caught:
        check_grammar(Grammar(kind, value), True)
    assert caught.value.text == f"Input validation error: {text}"


def test_no_grammar_is_accepted_where_they_are_switched_off() -> None:
    """--disable-grammar-support."""
    with pytest.raises(Refused, match="grammar is not supported"):
        check_grammar(Grammar("regex", "a"), False)


WEATHER = Tool("function", Function("weather", {"type": "object", "properties": {"city": {"type": "string"}}}))


def test_automatic_choice_offers_no_tool_as_the_last_one() -> None:
    """`auto` adds `no_tool`, `required` does not; a named tool stands alone."""
    names = {}
    for choice in (ToolChoice("auto"), ToolChoice("required"), ToolChoice("function", "weather")):
        found = tool_grammar([WEATHER], choice)
        assert found is not None
        names[choice.kind] = [tool.function.name for tool in found[0]]
    assert names == {"auto": ["weather", "no_tool"], "required": ["weather"], "function": ["weather"]}
    assert tool_grammar([WEATHER], ToolChoice("none")) is None


def test_the_text_of_a_tool_call_can_be_parsed_back() -> None:
    """What the tool grammar makes the model say is a call of that tool with its arguments."""
    found = tool_grammar([WEATHER], ToolChoice("auto"))
    assert found is not None
    name, arguments = parse_call(check_grammar(found[1], True))
    assert (name, list(arguments)) == ("weather", ["city"])


def test_a_cut_call_is_no_call() -> None:
    """A call that broke off is told with the text so far."""
    with pytest.raises(Refused) as caught:
        parse_call('{"function":{"_name":"wea')
    assert caught.value.text == (
        "Tool error: Failed to parse generated text: EOF while parsing a string at line 1 column 25"
        ' "{\\"function\\":{\\"_name\\":\\"wea"'
    )
    assert is_call('{"function":{"_name":"wea') is None
