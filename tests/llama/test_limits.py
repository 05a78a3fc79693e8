"""Where llama.cpp's server refuses, ends short, breaks off or lets wait."""

from __future__ import annotations

import json
import select
import socket

from tests.llama.conftest import Launch
from tests.llama.running import CHAT, PATIENCE, LlamaServer, conversation
from tests.waiting import until


def request(path: str, body: object) -> bytes:
    data = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode()


def test_a_prompt_that_fills_the_context_is_refused_and_a_token_less_is_not(server: LlamaServer) -> None:
    """400 with both numbers, before a stream begins; nothing is refused for its max_tokens."""
    frame = server.chat(1, max_tokens=1).json()["usage"]["prompt_tokens"] - 1
    last = server.chat(2047 - frame, max_tokens=500).json()
    assert (last["usage"]["completion_tokens"], last["choices"][0]["finish_reason"]) == (1, "length")
    for stream in (False, True):
        refused = server.chat(2048 - frame, max_tokens=1, stream=stream)
        error = refused.json()["error"]
        assert (refused.status, error["type"]) == (400, "exceed_context_size_error")
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (2048, 2048)


def test_a_slot_that_outgrows_its_share_just_ends_short(server: LlamaServer) -> None:
    """With own shares no error tells that fewer tokens came than were asked for."""
    answer = server.chat(1900, max_tokens=1000, ignore_eos=True).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 2048


def test_a_shared_pool_that_overflows_ends_every_answer_with_an_error(launch: Launch) -> None:
    """Status 200, some tokens, then an error event and no [DONE]; the server serves on."""
    server = launch("-c", "4096", "-np", "2", "--kv-unified")
    # Large enough that the first cannot fill the pool alone before the second has begun.
    fields = {"max_tokens": 4000, "ignore_eos": True}
    with server.streaming(1000, **fields) as one, server.streaming(1000, **fields) as other:
        texts = [stream.read().decode() for stream in (one, other)]
    for text in texts:
        assert '"content":" ' in text
        assert text.endswith(
            'data: {"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}\n\n'
        )
    assert server.chat(10, max_tokens=3).json()["usage"]["completion_tokens"] == 3


def test_what_finds_no_slot_waits_and_is_counted(launch: Launch) -> None:
    """requests_deferred is the queue: no limit, no answer, not even a status line, until a slot is free."""
    server = launch("-c", "8192", "-np", "1", "--metrics")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as waiting:
        with server.streaming(10, max_tokens=8000, ignore_eos=True) as stream:
            stream.readline()
            waiting.sendall(request(CHAT, conversation(10, max_tokens=5)))
            until(lambda: server.metrics()["requests_deferred"] == 1, seconds=PATIENCE)
            assert server.metrics()["requests_processing"] == 1
            assert server.ask("GET", "/slots?fail_on_no_slot=1").status == 503
            assert select.select([waiting], [], [], 0)[0] == []
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 OK")
    until(lambda: server.metrics()["requests_processing"] == 0, seconds=PATIENCE)
    assert server.metrics()["requests_deferred"] == 0
