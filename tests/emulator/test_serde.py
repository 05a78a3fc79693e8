"""Request bodies are read, and refused, as serde_json does it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.emulator import bodies
from harness.emulator.json_reader import JsonError, Reader
from harness.emulator.serde import ANYTHING, Ignored, Shape, read_body

G, C, K = bodies.GENERATE, bodies.CHAT, bodies.COMPLETION
MESSAGES = '"messages":[{"role":"user","content":"a"}]'

# What TGI's own router answered to these bodies (status 422), without axum's first words.
DATA = [
    (G, '{"parameters":{}}', "missing field `inputs` at line 1 column 17"),
    (G, '{"inputs":"a","inputs":"b"}', "duplicate field `inputs` at line 1 column 22"),
    (G, '{"inputs":5}', "inputs: invalid type: integer `5`, expected a string at line 1 column 11"),
    (
        G,
        '{"inputs":"hello","parameters":{"top_k":2.5}}',
        "parameters.top_k: invalid type: floating point `2.5`, expected i32 at line 1 column 43",
    ),
    (
        G,
        '{"inputs":"a","parameters":{"top_k":2147483648}}',
        "parameters.top_k: invalid value: integer `2147483648`, expected i32 at line 1 column 46",
    ),
    (
        G,
        '{"inputs":"a","parameters":{"stop":"x"}}',
        'parameters.stop: invalid type: string "x", expected a sequence at line 1 column 38',
    ),
    (
        G,
        '{"inputs":"a","parameters":{"details":null}}',
        "parameters.details: invalid type: null, expected a boolean at line 1 column 42",
    ),
    (
        G,
        '{"inputs":"a","parameters":{"max_new_tokens":-1}}',
        "parameters.max_new_tokens: invalid value: integer `-1`, expected u32 at line 1 column 47",
    ),
    (
        G,
        '{"inputs":"a","parameters":{"grammar":{"type":"xml","value":1}}}',
        "parameters.grammar.type: unknown variant `xml`, expected one of `json`, `json_object`, `regex`,"
        " `json_schema` at line 1 column 51",
    ),
    (G, '["a",{},1', None),
    (G, "[]", "invalid length 0, expected struct GenerateRequest with 2 elements at line 1 column 2"),
    (
        C,
        '{"messages":[{"role":"user","content":null}],"max_tokens":3}',
        "messages[0]: data did not match any variant of untagged enum MessageBody at line 1 column 43",
    ),
    (C, '{"messages":[{"content":"x"}]}', "messages[0]: missing field `role` at line 1 column 28"),
    (
        C,
        '{"messages":[],"stream_options":null}',
        "stream_options: invalid type: null, expected struct StreamOptions at line 1 column 36",
    ),
    (
        C,
        f'{{{MESSAGES},"max_tokens":3,"max_completion_tokens":3}}',
        "duplicate field `max_tokens` at line 1 column 82",
    ),
    (
        K,
        '{"prompt":[],"max_tokens":3}',
        "prompt: Empty array detected. Do not use an empty array for the prompt. at line 1 column 12",
    ),
    (bodies.SAGEMAKER, '{"foo":1}', "data did not match any variant of untagged enum SagemakerRequest"),
]

# Bodies that are no JSON (status 400).
SYNTAX = [
    (G, "", "EOF while parsing a value at line 1 column 0"),
    (G, "{", "EOF while parsing an object at line 1 column 1"),
    (G, '{"inputs":"a",}', "trailing comma at line 1 column 15"),
    (G, '{"inputs":"a" "x":1}', "expected `,` or `}` at line 1 column 15"),
    (G, "{inputs:1}", "key must be a string at line 1 column 2"),
    (G, '{"inputs":NaN}', "inputs: expected value at line 1 column 11"),
    (
        G,
        '{"inputs":"a\nb"}',
        "inputs: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0",
    ),
    (G, '{"inputs":"\\ud83d"}', "inputs: unexpected end of hex escape at line 1 column 18"),
    (
        G,
        '{"inputs":"a","parameters":{"temperature":1e400}}',
        "parameters.temperature: number out of range at line 1 column 47",
    ),
    (
        G,
        '{"inputs":"a","parameters":{"grammar":{"type":null}}}',
        "parameters.grammar.type: expected value at line 1 column 47",
    ),
]


def refusal(shape: Shape, text: str) -> JsonError:
    with pytest.raises(JsonError) as caught:
        read_body(shape, text.encode())
    return caught.value


@pytest.mark.parametrize(("shape", "text", "expected"), [case for case in DATA if case[2]])
def test_a_wrong_type_is_named_with_its_path_and_column(shape: Shape, text: str, expected: str) -> None:
    """Each mistake of type has serde's text, its path and the column where the reader stood."""
    error = refusal(shape, text)
    assert (error.describe(), error.data) == (expected, True)


@pytest.mark.parametrize(("shape", "text", "expected"), SYNTAX)
def test_broken_json_is_named_with_its_column(shape: Shape, text: str, expected: str) -> None:
    """Each mistake of syntax has serde_json's text, and is another status than a wrong type."""
    error = refusal(shape, text)
    assert (error.describe(), error.data) == (expected, False)


ACCEPTED = [
    (G, '{"inputs":"a"} x', lambda ask: ask.parameters.do_sample),  # text behind the value is not looked at
    (G, '{"inputs":"a","parameters":{}}', lambda ask: not ask.parameters.do_sample),
    (G, '{"inputs":"a","parameters":[]}', lambda ask: ask.parameters.max_new_tokens is None),
    (G, '["a",{"max_new_tokens":2}]', lambda ask: ask.parameters.max_new_tokens == 2),
    (G, '{"inputs":"a","x":1e999,"y":[[{"k":[]}]]}', lambda ask: ask.inputs == "a"),  # unknown fields are skipped
    (G, '{"inputs":"a","parameters":{"seed":18446744073709551615}}', lambda ask: ask.parameters.seed == 2**64 - 1),
    (G, '{"inputs":"a","parameters":{"temperature":1}}', lambda ask: ask.parameters.temperature == 1.0),
    (C, '{"messages":[],"tool_choice":null}', lambda chat: chat.tool_choice.kind == "auto"),
    (C, '{"messages":[],"tool_choice":"f"}', lambda chat: chat.tool_choice.name == "f"),
    (
        C,
        '{"messages":[{"role":"u","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"b"}}]}]}',
        lambda chat: chat.messages[0].content == "a![](b)",
    ),
    (K, '{"prompt":"a"}', lambda body: body.prompts == ["a"]),
]


@pytest.mark.parametrize(("shape", "text", "holds"), ACCEPTED)
def test_what_serde_accepts_is_accepted(shape: Shape, text: str, holds: Any) -> None:
    """Leniencies of the router: lists for structs, unknown fields, text behind the value, defaults."""
    assert holds(read_body(shape, text.encode()))


def test_a_single_precision_value_is_what_counts() -> None:
    """0.999999999 is 1 as f32, so that `top_p` is refused as TGI refuses it."""
    ask = read_body(G, b'{"inputs":"a","parameters":{"top_p":0.999999999}}')
    assert ask.parameters.top_p == 1.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.booleans())
def test_any_json_is_read_as_pythons_own_reader_reads_it(value: Any, pretty: bool) -> None:
    """The reader agrees with json.loads on whatever json.dumps writes, and skips exactly as much."""
    text = json.dumps(value, indent=1 if pretty else None, ensure_ascii=pretty).encode("utf-8", "surrogatepass")
    reader, skipping = Reader(text), Reader(text)
    if b"\\ud" not in text.lower():
        assert ANYTHING.read(reader) == json.loads(text)
        Ignored().read(skipping)
        assert skipping.at == reader.at == len(text)


@given(JSON, st.data())
def test_a_cut_body_is_always_a_syntax_error(value: Any, data: st.DataObject) -> None:
    """A JSON text that breaks off is never taken for a wrong type, and never read as something else."""
    text = json.dumps({"x": value, "inputs": "a"}).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(JsonError) as caught:
        read_body(G, text[:cut])
    assert not caught.value.data
