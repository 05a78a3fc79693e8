"""Every route over real HTTP: answers, events, headers, errors."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.emulator.conftest import Emulator, Reply

ASK = {"inputs": "one two three", "parameters": {"max_new_tokens": 4, "details": True}}
USER = [{"role": "user", "content": "hello there"}]
CHAT = {"messages": USER, "max_tokens": 5}
VARY = "origin, access-control-request-method, access-control-request-headers"
GENERATE, STREAM, CHATS, COMPLETE = "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions"


def ask(**parameters: Any) -> dict[str, Any]:
    return {"inputs": "one two three", "parameters": {"max_new_tokens": 4, **parameters}}


def test_generate_tells_every_detail(server: Emulator) -> None:
    """Keys in TGI's order, four tokens, no seed when greedy, headers with counts and whole milliseconds."""
    reply = server.post(GENERATE, ASK)
    body = reply.json()
    assert list(body) == ["generated_text", "details"]
    assert list(body["details"]) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert body["details"]["finish_reason"] == "length"
    assert body["details"]["seed"] is None
    assert list(body["details"]["tokens"][0]) == ["id", "text", "logprob", "special"]
    assert "".join(token["text"] for token in body["details"]["tokens"]) == body["generated_text"]
    assert (reply.headers["x-prompt-tokens"], reply.headers["x-generated-tokens"]) == ("4", "4")
    assert reply.headers["x-compute-characters"] == "13"
    assert reply.headers["x-compute-type"] == "1-nvidia-l4"
    assert all(reply.headers[f"x-{name}"].isdigit() for name in ("total-time", "queue-time", "time-per-token"))
    assert float(reply.headers["x-compute-time"]) > 0


def test_the_same_question_has_the_same_answer(server: Emulator) -> None:
    """Greedy answers depend on the prompt, sampled ones on the seed too."""
    texts = [server.post(GENERATE, ask(**p)).json()["generated_text"] for p in ({}, {}, {"seed": 1})]
    assert texts[0] == texts[1] == texts[2]  # without sampling a seed does nothing
    sampled = [server.post(GENERATE, ask(do_sample=True, seed=s)).json()["generated_text"] for s in (5, 5, 6)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_a_seed_is_told_exactly_when_it_was_used(server: Emulator) -> None:
    """u64 seeds come back to the last digit."""
    details = server.post(GENERATE, ask(do_sample=True, seed=2**64 - 1, details=True)).json()["details"]
    assert details["seed"] == 2**64 - 1


def test_a_stream_has_one_event_per_token_and_chunk(server: Emulator) -> None:
    """Framing, order of keys, and the whole text on the last event."""
    reply = server.post(STREAM, ASK)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert [chunk.decode() for chunk in reply.chunks] == [event + "\n\n" for event in reply.events]
    tokens = reply.tokens()
    assert [token["index"] for token in tokens] == [1, 2, 3, 4]
    assert list(tokens[0]) == ["index", "token", "generated_text", "details"]
    assert [token["generated_text"] for token in tokens[:3]] == [None] * 3
    assert tokens[3]["generated_text"] == server.post(GENERATE, ASK).json()["generated_text"]
    assert tokens[3]["details"] == {
        "finish_reason": "length", "generated_tokens": 4, "seed": None, "input_length": 4,
    }  # fmt: skip


def test_top_tokens_stand_between_token_and_text(server: Emulator) -> None:
    """top_n_tokens: a list per token, left out when nobody asked."""
    tokens = server.post(STREAM, ask(top_n_tokens=2)).tokens()
    assert list(tokens[0]) == ["index", "token", "top_tokens", "generated_text", "details"]
    assert len(tokens[0]["top_tokens"]) == 2
    details = server.post(GENERATE, ask(top_n_tokens=2, details=True)).json()["details"]
    assert [len(top) for top in details["top_tokens"]] == [2] * 4


def test_best_of_gives_the_likeliest_and_the_rest(server: Emulator) -> None:
    """The winner has the highest mean log probability; the others are told beside it."""
    details = server.post(GENERATE, ask(best_of=2, do_sample=True, details=True)).json()["details"]
    assert len(details["best_of_sequences"]) == 1

    def mean(sequence: dict[str, Any]) -> float:
        return sum(token["logprob"] for token in sequence["tokens"]) / len(sequence["tokens"])

    assert mean(details) >= mean(details["best_of_sequences"][0])
    assert next(iter(details["best_of_sequences"][0])) == "generated_text"


def test_the_full_text_begins_with_the_prompt(server: Emulator) -> None:
    """return_full_text, by itself on POST / where the model has no pipeline tag."""
    assert server.post(GENERATE, ask(return_full_text=True)).json()["generated_text"].startswith("one two three ")
    assert server.post("/", ask()).json()[0]["generated_text"].startswith("one two three ")
    assert not server.post("/", ask(return_full_text=False)).json()[0]["generated_text"].startswith("one")


def test_root_streams_when_asked(server: Emulator) -> None:
    """POST / with `stream` is /generate_stream."""
    assert len(server.post("/", {**ask(), "stream": True}).events) == 4


def test_a_stop_sequence_ends_the_answer_and_stays_in_it(server: Emulator) -> None:
    """The text ends with it, the reason says so."""
    whole = server.post(GENERATE, ask(max_new_tokens=8, details=True)).json()["details"]["tokens"]
    stop = whole[2]["text"] + whole[3]["text"]
    body = server.post(GENERATE, ask(max_new_tokens=8, details=True, stop=[stop])).json()
    assert body["generated_text"].endswith(stop)
    assert (body["details"]["finish_reason"], body["details"]["generated_tokens"]) == ("stop_sequence", 4)
    empty = server.post(GENERATE, ask(details=True, stop=[""])).json()["details"]
    assert (empty["finish_reason"], empty["generated_tokens"]) == ("stop_sequence", 1)


def test_truncate_keeps_the_last_tokens(server: Emulator) -> None:
    """The prompt counts as its last n tokens."""
    reply = server.post(GENERATE, {"inputs": "a b c d e", "parameters": {"max_new_tokens": 2, "truncate": 2}})
    assert reply.headers["x-prompt-tokens"] == "2"


def test_a_chat_is_counted_as_it_is_templated(server: Emulator) -> None:
    """usage, /chat_tokenize and the header agree to the token."""
    reply = server.post(CHATS, CHAT)
    body = reply.json()
    assert list(body) == ["object", "id", "created", "model", "system_fingerprint", "choices", "usage"]
    assert (body["object"], body["id"]) == ("chat.completion", "")
    assert body["system_fingerprint"] == "3.3.6-dev0-harness-emulator"
    assert body["choices"][0]["finish_reason"] == "length"
    tokenized = server.post("/chat_tokenize", CHAT).json()
    count = len(tokenized["tokenize_response"])
    assert body["usage"] == {"prompt_tokens": count, "completion_tokens": 5, "total_tokens": count + 5}
    assert tokenized["templated_text"].startswith("<s><|user|>\nhello there")


def test_a_chat_stream_ends_with_done(server: Emulator) -> None:
    """One chunk per token, the reason on the last of them, and no usage unless asked."""
    reply = server.post(CHATS, {**CHAT, "stream": True})
    assert reply.events[-1] == "data: [DONE]"
    chunks = reply.tokens()
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    assert {chunk["usage"] for chunk in chunks} == {None}
    asked = server.post(CHATS, {**CHAT, "stream": True, "stream_options": {"include_usage": True}}).tokens()
    assert (asked[-1]["choices"], asked[-1]["usage"]["completion_tokens"]) == ([], 5)


def test_log_probabilities_of_a_chat(server: Emulator) -> None:
    """logprobs with top_logprobs, streamed or not."""
    chat = {**CHAT, "logprobs": True, "top_logprobs": 2}
    content = server.post(CHATS, chat).json()["choices"][0]["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in content] == [2] * 5
    chunk = server.post(CHATS, {**chat, "stream": True}).tokens()[0]
    assert list(chunk["choices"][0]["logprobs"]["content"][0]) == ["token", "logprob", "top_logprobs"]


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def test_a_tool_call_comes_as_one(server: Emulator) -> None:
    """Arguments as a JSON text; in a stream the name first, then the arguments piece by piece."""
    chat = {"messages": USER, "max_tokens": 80, "tools": [TOOL], "tool_choice": "required"}
    choice = server.post(CHATS, chat).json()["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert (call["id"], call["type"], call["function"]["name"]) == ("0", "function", "weather")
    assert list(json.loads(call["function"]["arguments"])) == ["city"]
    assert choice["finish_reason"] == "stop"
    deltas = [chunk["choices"][0]["delta"] for chunk in server.post(CHATS, {**chat, "stream": True}).tokens()]
    functions = [delta["tool_calls"][0]["function"] for delta in deltas]
    assert [function["name"] for function in functions] == ["weather"] + [None] * (len(functions) - 1)
    assert list(json.loads("".join(function["arguments"] for function in functions))) == ["city"]


def test_a_tool_call_that_is_cut_is_an_error_or_nothing(server: Emulator) -> None:
    """Too few tokens: 422 when plain, only `[DONE]` when streamed."""
    chat = {"messages": USER, "max_tokens": 3, "tools": [TOOL]}
    reply = server.post(CHATS, chat)
    assert (reply.status, reply.json()["error_type"]) == (422, "tool_error")
    assert reply.json()["error"].startswith("Tool error: Failed to parse generated text: ")
    assert server.post(CHATS, {**chat, "stream": True}).events == ["data: [DONE]"]


def test_completions_sum_their_prompts(server: Emulator) -> None:
    """Several prompts in one call: a choice each, counts added up, no x-compute-time."""
    reply = server.post(COMPLETE, {"prompt": ["a", "b c"], "max_tokens": 3})
    body = reply.json()
    assert sorted(choice["index"] for choice in body["choices"]) == [0, 1]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    assert reply.headers["x-generated-tokens"] == "6"
    assert "x-compute-time" not in reply.headers


def test_streamed_completions_take_turns(server: Emulator) -> None:
    """Chunks of the prompts alternate; a refused prompt is one error event among them."""
    chunks = server.post(COMPLETE, {"prompt": ["a", "b"], "max_tokens": 3, "stream": True}).tokens()
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1] * 3
    assert list(chunks[0]) == ["object", "id", "created", "choices", "model", "system_fingerprint"]
    assert list(chunks[-1]) == ["object", "id", "created", "model", "system_fingerprint", "choices", "usage"]
    assert chunks[0]["choices"][0]["finish_reason"] == ""
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    mixed = server.post(COMPLETE, {"prompt": ["a", ""], "max_tokens": 2, "stream": True})
    assert sum("error" in chunk for chunk in mixed.tokens()) == 1
    assert len(mixed.tokens()) == 3
    assert mixed.events[-1] == "data: [DONE]"


def test_the_clouds_routes(server: Emulator) -> None:
    """SageMaker tries three bodies; Vertex answers texts, and 500 for whatever fails."""
    assert server.post("/invocations", ask()).json()[0]["generated_text"]
    assert server.post("/invocations", CHAT).json()["object"] == "chat.completion"
    assert server.post("/invocations", {"prompt": "a", "max_tokens": 1}).json()["object"] == "text_completion"
    reply = server.post("/vertex", {"instances": [ask(), CHAT]})
    assert len(reply.json()["predictions"]) == 2
    failed = server.post("/vertex", {"instances": [{"inputs": ""}]})
    assert (failed.status, failed.json()["error"]) == (500, "Incomplete generation")
    assert server.post("/vertex", {"instances": []}).status == 422


def test_tokenize_tells_identity_text_and_place(server: Emulator) -> None:
    """`<s>` has no place; offsets are bytes."""
    tokens = server.post("/tokenize", {"inputs": "gr\u00fcn ja"}).json()
    assert [(token["text"], token["start"], token["stop"]) for token in tokens] == [
        ("", 0, 0), ("gr\u00fcn", 0, 5), (" ja", 5, 8),
    ]  # fmt: skip


def test_info_has_its_keys_in_order(server: Emulator) -> None:
    """Effective limits, and by docker_label that all this is emulated."""
    assert server.ask("GET", "/info").json() == {
        "model_id": "Qwen/Qwen2.5-0.5B", "model_sha": None, "model_pipeline_tag": None,
        "max_concurrent_requests": 128, "max_best_of": 2, "max_stop_sequences": 4, "max_input_tokens": 1024,
        "max_total_tokens": 2048, "validation_workers": 2, "max_client_batch_size": 4,
        "router": "text-generation-router", "version": "3.3.6-dev0", "sha": None, "docker_label": "harness-emulator",
    }  # fmt: skip
    assert server.ask("GET", "/v1/models").json()["data"][0]["owned_by"] == "Qwen/Qwen2.5-0.5B"


VALIDATION = [
    (ask(temperature=0), "`temperature` must be strictly positive"),
    (ask(temperature=0, top_k=0), "`temperature` must be strictly positive"),
    (ask(repetition_penalty=-1), "`repetition_penalty` must be strictly positive"),
    (ask(frequency_penalty=2.1), "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    (ask(top_k=0), "`top_k` must be strictly positive"),
    (ask(top_p=1.0), "`top_p` must be > 0.0 and < 1.0"),
    (ask(typical_p=0), "`typical_p` must be > 0.0 and < 1.0"),
    (ask(max_new_tokens=0), "`max_new_tokens` must be strictly positive"),
    (ask(stop=list("abcde")), "`stop` supports up to 4 stop sequences. Given: 5"),
    (ask(best_of=3, do_sample=True), "`best_of` must be > 0 and <= 2. Given: 3"),
    (ask(best_of=2), "you must use sampling when `best_of` is > 1"),
    (ask(best_of=2, do_sample=True, seed=1), "`seed` must not be set when `best_of` > 1"),
    (ask(top_n_tokens=6), "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    (ask(truncate=1025), "`truncate` must be strictly positive and less than 1024. Given: 1025"),
    ({"inputs": ""}, "`inputs` cannot be empty"),
    (
        {"inputs": "a " * 1500, "parameters": {"max_new_tokens": 1000}},
        "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1502 `inputs` tokens and 1000 `max_new_tokens`",
    ),
    (
        {"inputs": "a " * 1500, "parameters": {"max_new_tokens": 5}},
        "`inputs` must have less than 1024 tokens. Given: 1502",
    ),
]


@pytest.mark.parametrize(("body", "text"), VALIDATION, ids=[text[:30] for _, text in VALIDATION])
def test_what_validation_refuses(server: Emulator, body: dict[str, Any], text: str) -> None:
    """422 with the text when plain; 200 with one error event when streamed."""
    reply = server.post(GENERATE, body)
    expected = {"error": f"Input validation error: {text}", "error_type": "validation"}
    assert (reply.status, reply.json()) == (422, expected)
    if "best_of" not in text:
        streamed = server.post(STREAM, body)
        assert (streamed.status, streamed.tokens()) == (200, [expected])


def test_what_a_stream_cannot_do(server: Emulator) -> None:
    """best_of and decoder_input_details, as an event of a 200 stream."""
    for parameters, name in (({"best_of": 2}, "`best_of` != 1"), ({"decoder_input_details": True}, "== true is not")):
        reply = server.post(STREAM, ask(**parameters))
        assert reply.status == 200
        assert name in reply.tokens()[0]["error"]


def test_openai_style_streams_have_errors_of_their_own(server: Emulator) -> None:
    """Always 422 in the event, and `[DONE]` behind it."""
    reply = server.post(CHATS, {**CHAT, "stream": True, "top_p": 1.0})
    text = "Input validation error: `top_p` must be > 0.0 and < 1.0"
    assert reply.tokens() == [{"error": {"message": text, "http_status_code": 422}}]
    assert reply.events[-1] == "data: [DONE]"


FRAMEWORK = [
    ("{", "application/json", 400, "Failed to parse the request body as JSON: EOF while parsing an object"),
    ("{}", "application/json", 422, "Failed to deserialize the JSON body into the target type: missing field `inputs`"),
    ("{}", "text/plain", 415, "Expected request with `Content-Type: application/json`"),
    ("{}", "application/json ; a=b", 415, "Expected request with `Content-Type: application/json`"),
    ("{}", "application/vnd.api+json; charset=utf-8", 422, "Failed to deserialize"),
]


@pytest.mark.parametrize(("body", "kind", "status", "text"), FRAMEWORK)
def test_what_the_framework_refuses_is_plain_text(
    server: Emulator, body: str, kind: str, status: int, text: str
) -> None:
    """Bodies and content types, with plain text and the connection left open."""
    with server.open() as wire:
        wire.send("POST", GENERATE, body.encode(), content_type=kind)
        reply = wire.reply()
        assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
        assert reply.body.decode().startswith(text)
        wire.send("GET", "/health")
        assert wire.reply().status == 200


def test_paths_and_methods(server: Emulator) -> None:
    """404 and 405 without a body, `allow` with what there is, HEAD wherever there is GET."""
    assert server.ask("GET", "/nope").status == server.ask("GET", "/info/").status == 404
    wrong = server.ask("PUT", "/")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST,GET,HEAD")
    assert server.ask("HEAD", "/info").headers["content-length"] == str(len(server.ask("GET", "/info").body))
    assert server.ask("GET", "/health?x=1").status == 200
    assert server.ask("GET", "/docs").headers["location"] == "/docs/"
    assert b"/api-doc/openapi.json" in server.ask("GET", "/docs/").body
    specification = server.ask("GET", "/api-doc/openapi.json").json()
    assert "/v1/chat/completions" in specification["paths"]
    assert "max_new_tokens" in specification["components"]["schemas"]["GenerateParameters"]["properties"]


def test_every_answer_may_be_read_from_any_origin(server: Emulator) -> None:
    """CORS headers on answers and errors, and 200 for any OPTIONS."""
    for reply in (server.ask("GET", "/nope"), server.ask("GET", "/health"), server.post(GENERATE, {})):
        assert (reply.headers["access-control-allow-origin"], reply.headers["vary"]) == ("*", VARY)
    preflight = server.ask("OPTIONS", "/anything")
    assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (200, "GET,POST")


def test_a_body_beyond_the_limit(server: Emulator) -> None:
    """413 once more than two megabytes have come."""
    reply = server.post(GENERATE, b'{"inputs":"' + b"a" * 2_000_000 + b'"}')
    assert (reply.status, reply.body) == (413, b"Failed to buffer the request body: length limit exceeded")


def test_requests_on_one_connection_are_answered_in_order(server: Emulator) -> None:
    """Pipelining, a stream first."""
    with server.open() as wire:
        wire.send("POST", STREAM, ask())
        wire.send("GET", "/nope")
        wire.send("GET", "/health")
        replies: list[Reply] = [wire.reply() for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 404, 200]
    assert len(replies[0].events) == 4


def test_a_client_may_ask_before_it_sends(server: Emulator) -> None:
    """Expect: 100-continue; and chunked request bodies."""
    body = json.dumps(ask()).encode()
    with server.open() as wire:
        head = f"POST {GENERATE} HTTP/1.1\r\ncontent-type: application/json\r\n"
        wire.raw(f"{head}expect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        wire.raw(body)
        assert wire.reply().status == 200
        wire.raw(f"{head}transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        assert wire.reply().status == 200


def test_http_1_0_streams_until_the_connection_ends(server: Emulator) -> None:
    """No chunks, no connection header; events all the same."""
    body = json.dumps(ask()).encode()
    with server.open() as wire:
        head = f"POST {STREAM} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        wire.raw(head.encode() + body)
        status, headers = wire.head()
        assert (status, "transfer-encoding" in headers, "connection" in headers) == (200, False, False)
        with pytest.raises(EOFError) as caught:
            wire.until(b"never")
        assert caught.value.args[0].count(b"data: ") == 4


def test_a_malformed_request_ends_the_connection(server: Emulator) -> None:
    """400 without any of the application's headers."""
    with server.open() as wire:
        wire.raw(b"hello world\r\n\r\n")
        status, headers = wire.head()
        assert (status, headers["connection"], "vary" in headers) == (400, "close", False)
        assert wire.closed()


def test_a_body_that_breaks_off_is_told(server: Emulator) -> None:
    """A client that closes its side in the middle of a body gets 400."""
    with server.open() as wire:
        wire.raw(f"POST {GENERATE} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{{".encode())
        wire.socket.shutdown(socket.SHUT_WR)
        reply = wire.reply()
        assert (reply.status, b"error reading a body" in reply.body) == (400, True)
