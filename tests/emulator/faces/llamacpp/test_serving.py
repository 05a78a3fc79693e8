"""llama.cpp's routes: its frames as they stand, its slots, its metrics page, a pool that ends what runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.emulator.conftest import Emulator, Reply
from tests.emulator.faces.conftest import LLAMACPP, chat, frames, prompt, said, samples, shape, together
from tests.waiting import until

SLOT = 2048
TAIL = (
    f'],"created":0,"id":"ID","model":"{LLAMACPP}","system_fingerprint":"b11549-emulated",'
    '"object":"chat.completion.chunk"'
)
FULL = '{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'


def timings(cached: int, read: int, made: int) -> str:
    """As they stand, figures of the clock made alike."""
    taken = ",".join(f'"prompt_{each}":0' for each in ("ms", "per_token_ms", "per_second"))
    each = ",".join(f'"predicted_{each}":0' for each in ("ms", "per_token_ms", "per_second"))
    return f'"timings":{{"cache_n":{cached},"prompt_n":{read},{taken},"predicted_n":{made},{each}}}'


def test_a_chat_stream_stands_as_llamacpp_writes_it(begin: Callable[..., Emulator]) -> None:
    """Only frames with a token carry timings and count up by one; usage and timings come in a frame at the end."""
    options = {"timings_per_token": True, "stream_options": {"include_usage": True}}
    reply = begin("llamacpp").post("/v1/chat/completions", chat(most=2, temperature=0, stream=True, **options))
    read = frames(reply)[-1]["usage"]["prompt_tokens"]
    words = [json.dumps(frame["choices"][0]["delta"]["content"]) for frame in frames(reply)[1:3]]
    counts = f'"completion_tokens":2,"prompt_tokens":{read},"total_tokens":{read + 2}'
    head = 'data: {"choices":[{"finish_reason":null,"index":0,"delta":{'
    assert shape(reply) == [
        f'{head}"role":"assistant","content":null}}}}{TAIL}}}',
        f'{head}"content":{words[0]}}}}}{TAIL},{timings(0, read, 1)}}}',
        f'{head}"content":{words[1]}}}}}{TAIL},{timings(0, read, 2)}}}',
        f'data: {{"choices":[{{"finish_reason":"length","index":0,"delta":{{}}}}{TAIL}}}',
        f'data: {{"choices":[{TAIL},"usage":{{{counts},"prompt_tokens_details":{{"cached_tokens":0}}}},'
        f"{timings(0, read, 2)}}}",
        "data: [DONE]",
    ]


def test_timings_come_with_the_end_where_no_usage_was_asked_for(llamacpp: Emulator) -> None:
    """In the frame with the reason, always; no frame has the counts that vLLM would send."""
    body = chat(most=3, stream=True, stream_options={"continuous_usage_stats": True})
    reply = frames(llamacpp.post("/v1/chat/completions", body))
    assert ["timings" in frame for frame in reply] == [False] * 4 + [True]
    assert reply[-1]["timings"]["predicted_n"] == 3
    assert not any("usage" in frame for frame in reply)


def test_a_completion_ends_with_its_usage(llamacpp: Emulator) -> None:
    """In one frame with reason and timings, an empty text in it; no frame tells a role."""
    reply = frames(llamacpp.post("/v1/completions", {"prompt": "a b", "max_tokens": 2, "stream": True}))
    assert [frame["choices"][0]["finish_reason"] for frame in reply] == [None, None, "length"]
    assert reply[-1]["choices"][0]["text"] == ""
    assert (reply[-1]["usage"]["completion_tokens"], reply[-1]["timings"]["predicted_n"]) == (2, 2)


def test_an_end_token_counts_without_a_frame(begin: Callable[..., Emulator], scenario: Callable[..., str]) -> None:
    """One token more in usage and timings than frames with text."""
    server = begin("llamacpp", "--scenario", scenario(answers={"eos_after": 3}))
    reply = frames(server.post("/v1/chat/completions", chat(most=9, stream=True, timings_per_token=True)))
    counts = [frame["timings"]["predicted_n"] for frame in reply if "timings" in frame]
    assert (counts, reply[-1]["choices"][0]["finish_reason"]) == ([1, 2, 3], "stop")


def test_timings_split_prompt_and_answer(begin: Callable[..., Emulator]) -> None:
    """A prompt's time ends and an answer's begins with the first token; a token's time is shared by all but that."""
    server = begin("llamacpp", speed="1")
    told = server.post("/v1/completions", {"prompt": prompt(1500), "max_tokens": 5, "ignore_eos": True}).json()
    times = told["timings"]
    assert (times["prompt_n"], times["predicted_n"]) == (1501, 5)
    assert times["predicted_per_token_ms"] == pytest.approx(times["predicted_ms"] / 4)
    assert times["prompt_per_token_ms"] == pytest.approx(times["prompt_ms"] / 1501)
    assert times["prompt_ms"] > times["predicted_per_token_ms"] > 0.5


def test_pages_say_who_answers(llamacpp: Emulator) -> None:
    """Slots and what one may use, who owns the model, what the build is; /version and /info are nobody's."""
    props = llamacpp.ask("GET", "/props")
    told = props.json()
    assert (told["total_slots"], told["default_generation_settings"]["n_ctx"]) == (4, SLOT)
    assert (told["build_info"], told["model_path"], told["endpoint_metrics"]) == ("b11549-emulated", LLAMACPP, True)
    assert props.headers["server"] == "llama.cpp"
    (card,) = llamacpp.ask("GET", "/v1/models").json()["data"]
    assert (card["id"], card["owned_by"], card["meta"]["n_ctx_train"]) == (LLAMACPP, "llamacpp", 32768)
    assert llamacpp.ask("GET", "/models").json()["object"] == "list"
    for path in ("/version", "/info", "/get_server_info"):
        reply = llamacpp.ask("GET", path)
        assert (reply.status, reply.json()["error"]["type"]) == (404, "not_found_error")


def test_the_model_of_a_body_does_not_matter(llamacpp: Emulator, begin: Callable[..., Emulator]) -> None:
    """Answers carry the server's name, and of several aliases the first by order."""
    assert llamacpp.post("/v1/chat/completions", chat(model="nope")).json()["model"] == LLAMACPP
    server = begin("llamacpp", "--alias", "tiny,small")
    (card,) = server.ask("GET", "/v1/models").json()["data"]
    assert (card["id"], card["aliases"]) == ("small", ["small", "tiny"])
    assert server.post("/v1/chat/completions", chat()).json()["model"] == "small"


def test_tokens_are_counted_in_several_forms(llamacpp: Emulator) -> None:
    """A text without its beginning unless asked, with pieces on demand; a chat as it is answered."""
    ids = llamacpp.post("/tokenize", {"content": "hello the world"}).json()["tokens"]
    whole = llamacpp.post("/tokenize", {"content": "hello the world", "add_special": True}).json()["tokens"]
    assert (len(ids), whole[1:]) == (3, ids)
    pieces = llamacpp.post("/tokenize", {"content": "hello the world", "with_pieces": True}).json()["tokens"]
    assert [each["piece"] for each in pieces] == ["hello", " the", " world"]
    assert llamacpp.post("/detokenize", {"tokens": ids}).json() == {"content": "hello the world"}
    body = chat("hello the world")
    counted = llamacpp.post("/v1/chat/completions/input_tokens", body).json()
    assert counted["object"] == "response.input_tokens"
    text = llamacpp.post("/apply-template", body).json()["prompt"]
    again = len(llamacpp.post("/tokenize", {"content": text, "add_special": True}).json()["tokens"])
    usage = llamacpp.post("/v1/chat/completions", body).json()["usage"]
    assert counted["input_tokens"] == again == usage["prompt_tokens"]


def test_only_a_prompt_can_be_too_long(llamacpp: Emulator) -> None:
    """Refused at the slot's size with both numbers, streamed or not; an answer that finds no room just ends."""
    for stream in (False, True):
        reply = llamacpp.post("/v1/completions", {"prompt": prompt(SLOT - 1), "max_tokens": 1, "stream": stream})
        assert reply.status == 400
        assert reply.json()["error"] == {
            "code": 400,
            "message": f"request ({SLOT} tokens) exceeds the available context size ({SLOT} tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": SLOT,
            "n_ctx": SLOT,
        }
        assert reply.headers["connection"] == "close"
    for words, made in ((SLOT - 2, 1), (SLOT - 9, 8)):
        told = llamacpp.post("/v1/completions", {"prompt": prompt(words), "max_tokens": 99, "ignore_eos": True}).json()
        assert (told["usage"]["completion_tokens"], told["choices"][0]["finish_reason"]) == (made, "length")


@pytest.mark.parametrize(("asked", "made"), [(0, 1), (7, 7), (-1, SLOT - 41), (None, SLOT - 41)])
def test_lengths_are_taken_as_they_are(asked: int | None, made: int, llamacpp: Emulator) -> None:
    """Nothing is one token; -1 and none are the rest of the slot."""
    body = {"prompt": prompt(40), "max_tokens": asked, "ignore_eos": True}
    assert llamacpp.post("/v1/completions", body).json()["usage"]["completion_tokens"] == made
    assert llamacpp.post("/v1/completions", {"prompt": "a", "max_tokens": -2}).status == 400


def test_pages_can_be_off(launch: Callable[..., Emulator]) -> None:
    """Metrics unless asked for, slots where forbidden: 501 with the flag that helps."""
    server = launch("-hf", LLAMACPP, "-c", "2048", "-np", "1", "--no-slots", "--gpu", "L4", face="llamacpp")
    until(lambda: server.ask("GET", "/health").status == 200)
    for page in ("metrics", "slots"):
        reply = server.ask("GET", f"/{page}")
        text = f"This server does not support {page} endpoint. Start it with `--{page}`"
        assert (reply.status, reply.json()["error"]) == (
            501,
            {"code": 501, "message": text, "type": "not_supported_error"},
        )


def test_slots_show_who_works(begin: Callable[..., Emulator]) -> None:
    """Tokens read and made while it runs, what is left in the cache afterwards."""
    server = begin("llamacpp", speed="1")
    fresh = server.ask("GET", "/slots").json()
    assert fresh[0] == {"id": 0, "n_ctx": SLOT, "speculative": False, "is_processing": False}
    with server.open() as wire:
        wire.send("POST", "/v1/completions", {"prompt": prompt(40), "max_tokens": 1000, "stream": True})
        wire.until(b"data: ")
        (busy,) = [slot for slot in server.ask("GET", "/slots").json() if slot["is_processing"]]
        (going,) = busy["next_token"]
        assert (busy["n_prompt_tokens_processed"], busy["n_prompt_tokens_cache"]) == (41, 0)
        assert busy["n_prompt_tokens"] == 41 + going["n_decoded"]
        assert going["n_remain"] + going["n_decoded"] == 1000
    until(lambda: not any(slot["is_processing"] for slot in server.ask("GET", "/slots").json()))
    assert server.ask("GET", "/slots").json()[busy["id"]]["n_prompt_tokens"] > 41


def test_counters_move_when_a_request_ends(begin: Callable[..., Emulator]) -> None:
    """Not before; only the count of steps tells what goes on. Speeds are those since the last look."""
    server = begin("llamacpp", speed="5")
    with server.open() as wire:
        body = {"prompt": prompt(40), "max_tokens": 300, "ignore_eos": True, "stream": True}
        wire.send("POST", "/v1/completions", body)
        wire.until(b"data: ")
        until(lambda: samples(server)["llamacpp:n_decode_total"] > 5)
        page = samples(server)
        assert (page["llamacpp:tokens_predicted_total"], page["llamacpp:requests_processing"]) == (0, 1)
        wire.until(b"[DONE]")
    page = samples(server)
    assert (page["llamacpp:prompt_tokens_total"], page["llamacpp:tokens_predicted_total"]) == (41, 300)
    assert page["llamacpp:n_tokens_max"] == 341
    assert page["llamacpp:predicted_tokens_seconds"] > 0
    assert samples(server)["llamacpp:predicted_tokens_seconds"] == 0


def test_a_repeated_prompt_is_found(begin: Callable[..., Emulator]) -> None:
    """All but its last token, on another slot as well; not where the body forbids it, and never without the cache."""
    server = begin("llamacpp")
    body = {"prompt": prompt(40), "max_tokens": 1}

    def cached(server: Emulator, **more: Any) -> int:
        told = server.post("/v1/completions", {**body, **more}).json()
        found = told["timings"]["cache_n"]
        assert found == told["usage"]["prompt_tokens_details"]["cached_tokens"] == 41 - told["timings"]["prompt_n"]
        return int(found)

    assert [cached(server), cached(server), cached(server, cache_prompt=False), cached(server)] == [0, 40, 0, 40]
    for number in range(8):  # both rounds of slots go to others; the host still has it
        server.post("/v1/completions", {"prompt": prompt(60, f"other{number}"), "max_tokens": 1})
    assert cached(server) == 40
    assert samples(server)["llamacpp:prompt_tokens_cached_total"] >= 120
    plain = begin("llamacpp", "--no-cache-prompt")
    assert [cached(plain), cached(plain)] == [0, 0]


UNIFIED = ("--kv-unified", "-c", "2048")


def crowd(server: Emulator, *, stream: bool) -> list[Reply]:
    """Four answers that need 1120 tokens each."""
    body = {"max_tokens": 800, "ignore_eos": True, "stream": stream}
    return together(4, lambda each: server.post("/v1/completions", {**body, "prompt": prompt(319, f"c{each}")}))


def test_a_shared_pool_ends_all_that_runs(begin: Callable[..., Emulator]) -> None:
    """With the one text, a plain answer as 500, a stream under 200 without an end; the server lives on."""
    server = begin("llamacpp", *UNIFIED, speed="2")
    for reply in crowd(server, stream=False):
        assert (reply.status, reply.body.decode()) == (500, FULL)
    made = [reply.events for reply in crowd(server, stream=True)]
    assert [events[-1] for events in made] == [f"data: {FULL}"] * 4
    tokens = sum(len(events) - 1 for events in made) + 4 * 320
    assert 2048 - 4 < tokens <= 2048 + 4  # the newest of each is not in the cache yet
    until(lambda: server.stderr.count("error: Context size has been exceeded.") == 8)
    assert server.ask("GET", "/health").status == 200
    alone = server.post("/v1/completions", {"prompt": prompt(319), "max_tokens": 2000, "ignore_eos": True})
    assert alone.json()["usage"]["total_tokens"] == 2048


def test_a_shared_pool_that_holds_all_ends_nobody(begin: Callable[..., Emulator]) -> None:
    """Four times 1120 tokens on 4608."""
    server = begin("llamacpp", "--kv-unified", "-c", "4608")
    assert [reply.json()["usage"]["completion_tokens"] for reply in crowd(server, stream=False)] == [800] * 4


def test_slots_of_their_own_end_only_themselves(begin: Callable[..., Emulator]) -> None:
    """The same four on a quarter of 2048 each: all end there, by length."""
    server = begin("llamacpp", "-c", "2048")
    for reply in crowd(server, stream=False):
        told = reply.json()
        assert (told["usage"]["total_tokens"], told["choices"][0]["finish_reason"]) == (512, "length")
    said(server, "stop processing: n_tokens = 511, truncated = 1")


def test_who_finds_no_slot_waits_without_a_byte(begin: Callable[..., Emulator]) -> None:
    """And is not noticed when it leaves, until its turn comes."""
    server = begin("llamacpp", "-np", "1", speed="1")
    body = chat(most=2000, ignore_eos=True, stream=True)
    with server.open() as first:
        first.send("POST", "/v1/chat/completions", body)
        first.until(b"data: ")
        with server.open() as second:
            second.send("POST", "/v1/chat/completions", body)
            until(lambda: samples(server)["llamacpp:requests_deferred"] == 1)
            second.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                second.until(b"HTTP")
        before = samples(server)["llamacpp:n_decode_total"]
        until(lambda: samples(server)["llamacpp:n_decode_total"] > before + 5)
        assert samples(server)["llamacpp:requests_deferred"] == 1
    until(lambda: samples(server)["llamacpp:requests_deferred"] == 0)
    until(lambda: samples(server)["llamacpp:requests_processing"] == 0)


def test_a_connection_ends_after_a_hundred_answers(llamacpp: Emulator) -> None:
    """As its header says; an error ends it at once."""
    with llamacpp.open() as wire:
        for _ in range(99):
            wire.send("GET", "/health")
            reply = wire.reply()
            assert reply.headers["keep-alive"] == "timeout=5, max=100"
        wire.send("GET", "/health")
        assert "connection" in wire.reply().headers
        assert wire.closed()
    with llamacpp.open() as wire:
        wire.send("GET", "/nothing")
        assert wire.reply().status == 404
        assert wire.closed()


def test_an_idle_connection_ends(llamacpp: Emulator) -> None:
    """After the five seconds of its header."""
    with llamacpp.open() as wire:
        wire.send("GET", "/health")
        wire.reply()
        assert wire.closed()
