"""vLLM's routes: its frames as they stand, its refusals, its metrics page, preemption seen from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import MODEL, chat, frames, prompt, samples, shape, together
from tests.emulator.faces.told import vllm_told
from tests.waiting import until

HEAD = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"Qwen/Qwen2.5-0.5B-Instruct","choices":['


def test_a_chat_stream_stands_as_vllm_writes_it(vllm: Emulator) -> None:
    """A role frame with no token, text in the frame that ends, counts in each, usage alone at the end."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    reply = vllm.post("/v1/chat/completions", chat(most=2, temperature=0, stream=True, stream_options=options))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    prompt_tokens = frames(reply)[-1]["usage"]["prompt_tokens"]
    words = [frame["choices"][0]["delta"]["content"] for frame in frames(reply)[1:3]]

    def usage(made: int, more: str = ',"completion_tokens_details":null') -> str:
        total = prompt_tokens + made
        counts = f'"prompt_tokens":{prompt_tokens},"total_tokens":{total},"completion_tokens":{made}'
        return f'"usage":{{{counts}{more}}}'

    assert shape(reply) == [
        f'data: {HEAD}{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}],'
        f'{usage(0)},"prompt_token_ids":null,"prompt_text":null}}',
        f'data: {HEAD}{{"index":0,"delta":{{"content":"{words[0]}"}},"logprobs":null,"finish_reason":null,'
        f'"token_ids":null}}],{usage(1)}}}',
        f'data: {HEAD}{{"index":0,"delta":{{"content":"{words[1]}"}},"logprobs":null,"finish_reason":"length",'
        f'"stop_reason":null,"token_ids":null}}],{usage(2)}}}',
        f'data: {HEAD}],{usage(2, "")},"system_fingerprint":"vllm-0.32.0-emulated"}}',
        "data: [DONE]",
    ]


def test_counts_in_each_frame_need_the_usage_at_the_end_too(vllm: Emulator) -> None:
    """Without include_usage neither comes, and the last frame has the fingerprint."""
    options = {"continuous_usage_stats": True}
    reply = frames(vllm.post("/v1/chat/completions", chat(most=2, stream=True, stream_options=options)))
    assert not any("usage" in frame for frame in reply)
    assert ["system_fingerprint" in frame for frame in reply] == [False, False, True]


def test_a_completion_stream_has_no_role(vllm: Emulator) -> None:
    """Text from the first frame on."""
    reply = frames(vllm.post("/v1/completions", {"prompt": "a b", "max_tokens": 2, "stream": True}))
    assert [list(frame["choices"][0]) for frame in reply] == [
        ["index", "text", "logprobs", "finish_reason", "stop_reason"]
    ] * 2
    assert [frame["choices"][0]["finish_reason"] for frame in reply] == [None, "length"]
    assert reply[0]["id"].startswith("cmpl-")


def test_pages_say_who_answers(vllm: Emulator) -> None:
    """The version, the model under its names, the length of its context."""
    assert vllm.ask("GET", "/version").json() == {"version": "0.32.0"}
    (card,) = vllm.ask("GET", "/v1/models").json()["data"]
    assert (card["id"], card["owned_by"], card["root"], card["max_model_len"]) == (MODEL, "vllm", MODEL, 2048)
    assert vllm.ask("GET", "/health").body == b""
    assert vllm.ask("GET", "/v1/models").headers["server"] == "uvicorn"


def test_tokens_are_counted_in_two_forms(vllm: Emulator) -> None:
    """A prompt with or without special tokens, a chat as it is answered; and back to text."""
    plain = vllm.post("/tokenize", {"prompt": "hello the world"}).json()
    assert (plain["count"], plain["max_model_len"], plain["token_strs"]) == (4, 2048, None)
    bare = vllm.post("/tokenize", {"prompt": "hello the world", "add_special_tokens": False, "return_token_strs": True})
    assert (bare.json()["tokens"], bare.json()["token_strs"]) == (plain["tokens"][1:], ["hello", " the", " world"])
    body = chat("hello the world")
    counted = vllm.post("/tokenize", {"messages": body["messages"]}).json()["count"]
    assert counted == vllm.post("/v1/chat/completions", body).json()["usage"]["prompt_tokens"]
    assert vllm.post("/detokenize", {"tokens": plain["tokens"][1:]}).json() == {"prompt": "hello the world"}


def error(server: Emulator, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    reply = server.post(path, body)
    return reply.status, reply.json()["error"]


def test_what_is_too_long_is_refused_and_the_rest_is_cut(vllm: Emulator) -> None:
    """A prompt beyond the context, an answer beyond it alone; both together give a shorter answer."""
    status, told = error(vllm, "/v1/completions", {"prompt": prompt(3000), "max_tokens": 1})
    assert (status, told["type"], told["param"], told["code"]) == (400, "BadRequestError", "input_tokens", 400)
    assert "However, your prompt contains at least 2049 input tokens" in told["message"]
    status, told = error(vllm, "/v1/completions", {"prompt": "a", "max_tokens": 2049})
    assert (status, told["param"]) == (400, "max_tokens")
    assert told["message"].startswith("max_tokens=2049 cannot be greater than max_model_len=2048.")
    usage = vllm.post("/v1/completions", {"prompt": prompt(2000), "max_tokens": 500}).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2001, 47)
    status, told = error(vllm, "/v1/completions", {"prompt": prompt(2047), "max_tokens": 5})
    assert (status, told["message"]) == (400, "max_tokens must be at least 1, got 0.")
    usage = vllm.post("/v1/completions", {"prompt": "a b"}).json()["usage"]
    assert usage["completion_tokens"] == 16


def test_errors_have_vllms_form(vllm: Emulator) -> None:
    """Another model, a wrong type, tools without a parser, a route of TGI."""
    assert error(vllm, "/v1/chat/completions", chat(model="tgi")) == (
        404,
        {"message": "The model `tgi` does not exist.", "type": "NotFoundError", "param": "model", "code": 404},
    )
    status, told = error(vllm, "/v1/chat/completions", chat(most="x"))
    assert (status, told["type"], told["param"]) == (400, "Bad Request", "body.max_tokens")
    tool = {"type": "function", "function": {"name": "f"}}
    assert "requires --enable-auto-tool-choice" in error(vllm, "/v1/chat/completions", chat(tools=[tool]))[1]["message"]
    assert error(vllm, "/generate", {"inputs": "a"}) == (
        404,
        {"message": "Not Found", "type": "Not Found", "param": None, "code": 404},
    )


def test_the_metrics_page_tells_the_same_as_the_log(vllm: Emulator) -> None:
    """cache_config_info with its labels; counters, gauges and histograms by vLLM's names."""
    page = vllm.ask("GET", "/metrics").body.decode()
    pool = vllm_told()
    info = re.search(r"vllm:cache_config_info\{(.*)\} 1\.0", page)
    assert info is not None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', info[1]))
    assert (labels["num_gpu_blocks"], labels["block_size"]) == (str(pool.blocks), "16")
    assert (labels["kv_cache_size_tokens"], labels["enable_prefix_caching"]) == (str(pool.tokens), "True")
    assert "model_name" not in labels
    before = samples(vllm)
    vllm.post("/v1/completions", {"prompt": prompt(40, "metrics"), "max_tokens": 5})
    after = samples(vllm)
    added = {name: after[name] - before[name] for name in after}
    assert added["vllm:prompt_tokens_total"] == added["vllm:prefix_cache_queries_total"] == 41
    assert added["vllm:generation_tokens_total"] == added["vllm:iteration_tokens_total_count"] == 5
    assert added["vllm:iteration_tokens_total_sum"] == 41 + 4
    assert added["vllm:request_success_total"] == added["vllm:e2e_request_latency_seconds_count"] == 1
    assert added["vllm:inter_token_latency_seconds_count"] == 4
    assert 'engine="0"' in page


def test_a_repeated_prompt_is_found_in_the_cache(begin: Callable[..., Emulator]) -> None:
    """Whole blocks of it, told in usage where asked for; not with the cache off."""
    for arguments, found in (((), 32), (("--no-enable-prefix-caching",), 0)):
        server = begin("vllm", "--enable-prompt-tokens-details", *arguments)
        body = {"prompt": prompt(40), "max_tokens": 1}
        first, second = (server.post("/v1/completions", body).json()["usage"] for _ in range(2))
        assert first["prompt_tokens_details"] is None
        assert second["prompt_tokens_details"] == ({"cached_tokens": found} if found else None)
        assert samples(server)["vllm:prefix_cache_hits_total"] == found


FULL = ("--num-gpu-blocks-override", "65", "--max-model-len", "512", "--max-num-seqs", "16")


@pytest.mark.parametrize(("rows", "preempts"), [(4, False), (8, True)])
def test_a_full_pool_preempts_and_answers_all_the_same(
    rows: int, preempts: bool, begin: Callable[..., Emulator]
) -> None:
    """64 blocks: four chats of 256 tokens fit, eight do not; every answer is whole either way."""
    server = begin("vllm", *FULL, speed="2")
    body = {"max_tokens": 216, "ignore_eos": True}
    replies = together(
        rows, lambda number: server.post("/v1/completions", {**body, "prompt": prompt(40, f"c{number}")})
    )
    assert {reply.json()["usage"]["completion_tokens"] for reply in replies} == {216}
    page = samples(server)
    assert (page["vllm:num_preemptions_total"] > 0) == preempts
    assert page["vllm:kv_cache_usage_perc"] == page["vllm:num_requests_running"] == 0


def test_a_full_queue_is_503(begin: Callable[..., Emulator]) -> None:
    """Running and waiting requests count alike, and refusals are counted."""
    server = begin("vllm", "--max-num-queued-reqs", "2", "--max-num-seqs", "1", speed="1")
    body = chat(most=1000, ignore_eos=True, stream=True)
    with server.open() as first, server.open() as second:
        for wire in (first, second):
            wire.send("POST", "/v1/chat/completions", body)
        first.until(b"data: ")
        until(lambda: samples(server)["vllm:num_requests_waiting"] == 1)
        status, told = error(server, "/v1/chat/completions", chat())
    assert (status, told["type"], told["code"]) == (503, "Service Unavailable", 503)
    assert told["message"].startswith("The engine is currently busy and cannot accept new requests.")
    assert samples(server)["vllm:admission_rejections_total"] == 1
