"""SGLang's routes: its frames as they stand, its refusals, its metrics page, retraction seen from outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import MODEL, chat, frames, prompt, said, samples, shape
from tests.emulator.faces.told import sglang_told
from tests.waiting import until

HEAD = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"Qwen/Qwen2.5-0.5B-Instruct","choices":['


def test_a_chat_stream_stands_as_sglang_writes_it(sglang: Emulator) -> None:
    """The role frame has no counts, the end is a frame of its own without text, the last count comes at the end."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = sglang.post("/v1/chat/completions", chat(most=2, temperature=0, stream=True, stream_options=options))
    prompt_tokens = frames(reply)[-1]["usage"]["prompt_tokens"]
    words = [frame["choices"][0]["delta"]["content"] for frame in frames(reply)[1:3]]

    def usage(made: int) -> str:
        counts = f'"prompt_tokens":{prompt_tokens},"total_tokens":{prompt_tokens + made},"completion_tokens":{made}'
        rest = '"prompt_tokens_details":null,"reasoning_tokens":0,"completion_tokens_details":null'
        return f'"usage":{{{counts},{rest}}}'

    nothing = '"logprobs":null,"finish_reason":null,"matched_stop":null'

    def word(number: int) -> str:
        delta = f'{{"reasoning_content":null,"content":"{words[number - 1]}"}}'
        return f'data: {HEAD}{{"index":0,"delta":{delta},{nothing}}}],{usage(number)}}}'

    assert shape(reply) == [
        f'data: {HEAD}{{"index":0,"delta":{{"reasoning_content":null,"role":"assistant","content":""}},{nothing}}}]}}',
        word(1),
        word(2),
        f'data: {HEAD}{{"index":0,"delta":{{"reasoning_content":null}},"logprobs":null,"finish_reason":"length",'
        '"matched_stop":null}]}',
        f"data: {HEAD}],{usage(2)}}}",
        "data: [DONE]",
    ]


def test_counts_in_each_frame_come_without_the_usage_at_the_end(sglang: Emulator) -> None:
    """Unlike vLLM's; the last frame is then the one that ends."""
    options = {"continuous_usage_stats": True}
    reply = frames(sglang.post("/v1/chat/completions", chat(most=2, stream=True, stream_options=options)))
    assert ["usage" in frame for frame in reply] == [False, True, True, False]


def test_a_token_without_text_has_no_frame(begin: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """The end token counts all the same, and its id is what matched."""
    server = begin("sglang", "--scenario", scenario(answers={"eos_after": 3}))
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = frames(server.post("/v1/chat/completions", chat(most=9, stream=True, stream_options=options)))
    assert [frame["usage"]["completion_tokens"] for frame in reply if "usage" in frame] == [1, 2, 3]
    (end,) = [each for frame in reply for each in frame["choices"] if each["finish_reason"]]
    assert (end["finish_reason"], end["matched_stop"]) == ("stop", 2)


def test_pages_say_who_answers(sglang: Emulator) -> None:
    """Model, version and limits, the pool among them; load without a metrics page."""
    (card,) = sglang.ask("GET", "/v1/models").json()["data"]
    assert (card["id"], card["owned_by"], card["max_model_len"]) == (MODEL, "sglang", 2048)
    assert sglang.ask("GET", "/model_info").json()["model_path"] == MODEL
    info, pool = sglang.ask("GET", "/server_info").json(), sglang_told()
    assert (info["version"], info["max_total_num_tokens"], info["max_req_input_len"]) == ("0.5.23", pool.tokens, 2042)
    assert info["max_running_requests"] == pool.rows
    (load,) = sglang.ask("GET", "/v1/loads").json()["loads"]
    assert (load["max_total_num_tokens"], load["num_waiting_reqs"]) == (pool.tokens, 0)
    assert sglang.ask("GET", "/version").status == 404


def test_tokens_are_counted_on_two_routes(sglang: Emulator) -> None:
    """A prompt, and a chat as it is answered."""
    for path in ("/tokenize", "/v1/tokenize"):
        told = sglang.post(path, {"prompt": "hello the world"}).json()
        assert (told["count"], len(told["tokens"]), told["max_model_len"]) == (4, 4, 2048)
    body = chat("hello the world")
    counted = sglang.post("/tokenize", {"messages": body["messages"]}).json()["count"]
    assert counted == sglang.post("/v1/chat/completions", body).json()["usage"]["prompt_tokens"]


def refused(server: Emulator, body: dict[str, Any]) -> tuple[int, str, int]:
    reply = server.post("/v1/completions", body)
    told = reply.json()
    assert told["object"] == "error"
    return reply.status, told["message"], told["code"]


def test_what_is_too_long_is_refused(sglang: Emulator) -> None:
    """A prompt, and prompt with answer: nothing is cut to the context."""
    status, text, code = refused(sglang, {"prompt": prompt(3000), "max_tokens": 1})
    assert (status, code) == (400, 400)
    assert text == "The input (3001 tokens) is longer than the model's context length (2048 tokens)."
    status, text, code = refused(sglang, {"prompt": prompt(1999), "max_tokens": 49})
    assert text.startswith(
        "Requested token count exceeds the model's maximum context length of 2048 tokens. You requested"
    )
    assert "a total of 2049 tokens: 2000 tokens from the input messages and 49 tokens for the completion" in text
    assert sglang.post("/v1/completions", {"prompt": "a b"}).json()["usage"]["completion_tokens"] == 16


def test_the_last_tokens_of_the_context_are_never_used(sglang: Emulator) -> None:
    """One for the longest request, one more for its answer, five for a prompt."""
    usage = sglang.post("/v1/completions", {"prompt": prompt(1999), "max_tokens": 48}).json()["usage"]
    assert usage["total_tokens"] == 2046
    status, text, _ = refused(sglang, {"prompt": prompt(2041), "max_tokens": 1})
    assert (status, text.split(".")[0]) == (
        400,
        "Input length (2042 tokens) exceeds the maximum allowed length (2042 tokens)",
    )
    stream = sglang.post("/v1/completions", {"prompt": prompt(2041), "max_tokens": 1, "stream": True})
    assert stream.status == 200
    first = json.loads(stream.events[0].removeprefix("data: "))
    assert (first["error"]["code"], first["error"]["type"]) == (400, "BAD_REQUEST")
    assert stream.events[-1] == "data: [DONE]"


def test_batches_are_logged_while_it_serves(begin: Callable[..., Emulator]) -> None:
    """A line for each prefill, and one for every so many decodes."""
    server = begin("sglang", "--decode-log-interval", "5")
    server.post("/v1/completions", {"prompt": prompt(30), "max_tokens": 12, "ignore_eos": True})
    said(server, "Prefill batch, #new-seq: 1, #new-token: 31, #cached-token: 0, token usage: 0.00")
    until(lambda: server.stderr.count("Decode batch, #running-req: ") == 2)


def test_the_metrics_page_is_there_on_demand(sglang: Emulator, launch: Callable[..., Emulator]) -> None:
    """By SGLang's names, with its two sets of labels; 404 without the flag."""
    before = samples(sglang)
    sglang.post("/v1/completions", {"prompt": prompt(40, "metrics"), "max_tokens": 5, "ignore_eos": True})
    after = samples(sglang)
    added = {name: after[name] - before[name] for name in after}
    assert (added["sglang:prompt_tokens_total"], added["sglang:generation_tokens_total"]) == (41, 5)
    assert added["sglang:num_requests_total"] == added["sglang:e2e_request_latency_seconds_count"] == 1
    assert after["sglang:max_total_num_tokens"] == sglang_told().tokens
    page = sglang.ask("GET", "/metrics").body.decode()
    assert re.search(r'sglang:token_usage\{engine_type="unified",model_name="[^"]+"\}', page)
    plain = launch("--model-path", MODEL, "--gpu", "L4", face="sglang")
    assert plain.ask("GET", "/metrics").status == 404


def test_a_repeated_prompt_is_found_until_the_cache_is_flushed(begin: Callable[..., Emulator]) -> None:
    """All of it but the last token, told in usage with --enable-cache-report."""
    server = begin("sglang", "--enable-cache-report")
    body = {"prompt": prompt(40), "max_tokens": 1}

    def cached() -> int:
        details = server.post("/v1/completions", body).json()["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"])

    assert [cached(), cached()] == [0, 40]
    assert server.post("/flush_cache", {}).status == 200
    assert cached() == 0
    assert samples(server)["sglang:cached_tokens_total"] == 40


SMALL = ("--max-total-tokens", "1024", "--context-length", "1000")


@pytest.mark.parametrize(("ignore_eos", "retracts"), [(True, False), (False, True)])
def test_a_full_pool_retracts_what_may_end_early(
    ignore_eos: bool, retracts: bool, begin: Callable[..., Emulator]
) -> None:
    """Eight answers of 256 tokens on 1024, begun one by one: all come whole; only expectations can be wrong.

    Of several that wait at once no more are let in than fit at full length, whatever is expected of them.
    """
    server = begin("sglang", *SMALL, "--schedule-conservativeness", "0.1", speed="1")
    body = {"max_tokens": 216, "ignore_eos": ignore_eos, "stream": True, "stream_options": {"include_usage": True}}
    with ExitStack() as stack:
        wires = [stack.enter_context(server.open()) for _ in range(8)]
        for number, wire in enumerate(wires):
            wire.send("POST", "/v1/completions", {**body, "prompt": prompt(39, f"c{number}")})
            wire.until(b"data: ")
        for wire in wires:
            assert b'"completion_tokens":216' in wire.until(b"[DONE]")
    page = samples(server)
    assert (page["sglang:num_retracted_requests_total"] > 0) == retracts
    server.stop()
    lines = [line for line in server.stderr.splitlines() if "Retract requests." in line]
    assert bool(lines) == retracts
    figures = r"#retracted_reqs: [1-9]\d*, #new_tokens_gained: [1-9]\d*, #new_token_ratio: 0"
    assert all(re.search(figures, line) for line in lines)
    assert page["sglang:num_used_tokens"] == 0


def test_a_full_queue_is_503_or_an_error_frame(begin: Callable[..., Emulator]) -> None:
    """Only waiting requests count; a stream is told in its first frame, under 200."""
    server = begin("sglang", "--max-queued-requests", "1", "--max-running-requests", "1", speed="1")
    body = chat(most=1000, ignore_eos=True, stream=True)
    with server.open() as first, server.open() as second:
        first.send("POST", "/v1/chat/completions", body)
        first.until(b"data: ")
        second.send("POST", "/v1/chat/completions", body)
        until(lambda: samples(server)["sglang:num_queue_reqs"] == 1)
        plain = server.post("/v1/chat/completions", chat())
        stream = server.post("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    message = "The request queue is full."
    assert (plain.status, plain.json()) == (
        503,
        {"object": "error", "message": message, "type": "503", "param": None, "code": 503},
    )
    inner = {"object": "error", "message": message, "type": "SERVICE_UNAVAILABLE", "param": None, "code": 503}
    assert stream.status == 200
    assert stream.events[0] == f"data: {json.dumps({'error': inner})}"
    assert frames(stream)[1]["usage"]["total_tokens"] == 0
    assert stream.events[-1] == "data: [DONE]"


def test_health_looks_for_a_sign_of_life(begin: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """A scheduler that hangs is found out; /ready only says that it was once up."""
    server = begin("sglang", "--scenario", scenario(faults=[{"kind": "hang", "after_requests": 0}]), speed="50")
    assert server.ask("GET", "/health").status == 200
    with server.open() as wire:
        wire.send("POST", "/v1/chat/completions", chat())
        until(lambda: samples(server)["sglang:num_running_reqs"] == 1)
        assert server.ask("GET", "/health").status == 503
        assert server.ask("GET", "/ready").status == 200
