"""Answers made to hurt: no field of one may end a load process, and each has its error kind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from harness.engines import APIS
from harness.engines.client import MOST_BYTES, Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.identify import identify
from harness.engines.stream import MOST_EVENT
from harness.errors import HarnessError
from harness.load.framing import ProtocolError, split_head
from harness.measure.journal import pack_record, unpack_record
from harness.measure.record import RequestRecord
from tests.mutations import damaged_bytes, damaged_document

SEED = int(os.environ.get("HARNESS_FUZZ_SEED", "1"))
MANY = int(os.environ.get("HARNESS_FUZZ", "1"))


def chunk(delta: Any, **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}]}


CHAT = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": f" w{n}"}) for n in range(6)),
    chunk({}, finish_reason="length"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 6, "completion_tokens_details": {"x": 0}}},
]  # fmt: skip
TGI = [
    *({"index": n, "token": {"id": n, "text": f" w{n}", "logprob": -0.5, "special": False}, "generated_text": None,
       "details": None} for n in range(5)),
    {"index": 5, "token": {"id": 9, "text": "</s>", "logprob": 0, "special": True}, "generated_text": "w",
     "details": {"finish_reason": "eos_token", "generated_tokens": 6, "input_length": 3}},
]  # fmt: skip
TEXT = [{"choices": [{"index": 0, "text": f" w{n}", "finish_reason": None}]} for n in range(5)]
TEXT += [{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": {"completion_tokens": 5}}]
STREAMS: dict[str, list[dict[str, Any]]] = {"tgi": TGI, "openai-chat": CHAT, "openai-completions": TEXT}


def counted(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": 3, "completion_tokens": number, "total_tokens": number + 3, **more}


# As each engine writes them: what it adds to the plain form.
VLLM = [
    {**chunk({"role": "assistant", "content": ""}), "usage": counted(0)},
    *({**chunk({"reasoning_content": f" r{n}"}), "usage": counted(n + 1)} for n in range(3)),
    *({**chunk({"content": f" w{n}"}, token_ids=[n], stop_reason=None), "usage": counted(n + 4)} for n in range(3)),
    {**chunk({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{"}}]}), "usage": None},
    {**chunk({"content": ""}, finish_reason="tool_calls", stop_reason=128009), "usage": counted(9)},
    {"choices": [], "usage": counted(9, prompt_tokens_details={"cached_tokens": 2})},
]  # fmt: skip
SGLANG = [
    chunk({"role": "assistant", "content": "", "reasoning_content": None}, matched_stop=None, logprobs=None),
    *(chunk({"content": f" w{n} w{n}"}, hidden_states=None) for n in range(4)),
    chunk({"content": None}, finish_reason="stop", matched_stop=151645),
    {"choices": [], "usage": counted(8, reasoning_tokens=0), "metadata": {"weight_version": "default"}},
]
LLAMACPP = [
    chunk({"role": "assistant", "content": None}, finish_reason=None),
    *(chunk({"content": f" w{n}"}, finish_reason=None) for n in range(4)),
    {**chunk({}, finish_reason="length"), "timings": {"prompt_n": 3, "predicted_n": 4, "predicted_per_second": 9.5}},
    {"choices": [], "usage": counted(4), "timings": {"prompt_n": 3, "predicted_n": 4}},
]
BROKEN = [*CHAT[:3], {"error": {"message": "out of memory", "type": "server_error", "code": 500}}]
FORMS = (
    *STREAMS.items(),
    *(("openai-chat", form) for form in (VLLM, SGLANG, LLAMACPP, BROKEN)),
    ("tgi", [*TGI[:2], {"error": "Request failed during generation: x", "error_type": "generation"}]),
    ("openai-completions", [{**each, "usage": counted(n)} for n, each in enumerate(TEXT)]),
)


def body_of(events: list[Any]) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in events) + b"data: [DONE]\n\n"


def recorded(api: str, body: bytes, status: int = 200, sizes: int = 50, stream: bool = True) -> RequestRecord:
    """What becomes of an answer, written to a journal and read back."""
    reading = APIS[api].reading(status, stream=stream)
    slices = [body[at : at + sizes] for at in range(0, len(body), sizes)]
    for at in range(0, len(slices), 7):
        reading.feed(slices[at : at + 7])
        reading.since(0)
    answer = reading.finish(complete=True)
    record = RequestRecord(
        "id", 0, 0.0, "completed" if answer.error_kind is None else "failed",
        token_at=[float(each) for each in answer.slice_of_event], token_count=list(answer.token_count),
        input_tokens=answer.input_tokens, output_tokens=answer.output_tokens, finish_reason=answer.finish_reason,
        error_kind=answer.error_kind, glued_events=answer.glued_events, first_share=answer.first_share,
        count_told=answer.count_told,
    )  # fmt: skip
    return unpack_record(pack_record(record))


@pytest.mark.parametrize(("api", "form"), FORMS)
def test_no_answer_can_end_a_load_process(api: str, form: list[Any]) -> None:
    """Whatever the events hold, and wherever they are cut, it becomes a record of the journal."""
    random_ = random.Random(f"{SEED} {api} {len(json.dumps(form))}")
    assert recorded(api, body_of(form)).status == ("failed" if "error" in form[-1] else "completed")
    for _ in range(150 * MANY):
        events: list[Any] = list(form)
        for _ in range(random_.choice((1, 1, 2))):
            place = random_.randrange(len(events))
            events[place] = damaged_document(events[place], random_)
        body = body_of(events)
        if random_.random() < 0.3:
            body = damaged_bytes(body, random_)
        if random_.random() < 0.2:
            body = json.dumps(random_.choice(events)).encode()
        recorded(
            api,
            body,
            random_.choice((200, 200, 200, 400, 503)),
            random_.choice((1, 7, 50, 5000)),
            random_.random() < 0.9,
        )


@pytest.mark.parametrize("number", [2**31, 2**63, 10**30, 10**400, -1, 1e308])
def test_a_count_that_no_answer_has_is_no_count(number: float) -> None:
    """Told at the end, or in every chunk."""
    events = [{**each, "usage": {"completion_tokens": number, "prompt_tokens": number}} for each in CHAT]
    for told in ([*CHAT[:-1], events[-1]], events):
        record = recorded("openai-chat", body_of(told))
        assert (record.output_tokens, record.input_tokens) == (None, None)


def test_a_finish_reason_is_a_short_text_without_control_codes() -> None:
    """Half a character, and a zero byte, have no place in a file."""
    events = [*CHAT[:-2], chunk({}, finish_reason="\ud800\0\x1b[2J" + "x" * 5000), CHAT[-1]]
    reason = recorded("openai-chat", body_of(events)).finish_reason
    assert reason is not None
    assert reason.startswith("\\ud800\\x00\\x1b[2Jx")
    assert len(reason) < 250


@pytest.mark.parametrize("api", list(STREAMS))
@pytest.mark.parametrize("begin", [b"data: ", b'data: {"a": "', b": a comment ", b"x"])
def test_an_event_without_an_end_is_given_up(api: str, begin: bytes) -> None:
    """After a mebibyte, at a cost that does not grow with what follows; what came before it stays."""
    reading = APIS[api].reading(200, stream=True)
    whole = body_of(STREAMS[api][:3]).removesuffix(b"data: [DONE]\n\n")
    reading.feed([whole, begin])
    piece, fed = b"a" * 16384, 0
    while not reading.too_large:
        reading.feed([piece] * 4)
        fed += 1
        assert fed * 4 * len(piece) < MOST_EVENT + 5 * 4 * len(piece)
    for _ in range(1000):
        reading.feed([piece])
    answer = reading.finish(complete=False)
    assert answer.error_kind == "too_large"
    assert len(answer.slice_of_event) > 0


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000,
    ],
)
def test_heads_beyond_all_bounds_are_a_matter_of_the_protocol(head: bytes) -> None:
    """And of nothing else."""
    with pytest.raises(ProtocolError):
        split_head(head)


@pytest.mark.parametrize("size", [b"0x5", b"+5", b"1_0", b"f" * 300, b"-1", b"", b" ", b"5 5", b"\xff"])
def test_a_chunk_size_that_is_none_is_a_matter_of_the_protocol(size: bytes) -> None:
    """As int() reads it, some would be one."""
    found = split_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert found is not None
    with pytest.raises(ProtocolError):
        found[0].body().feed([size + b"\r\nhello\r\n"])


class _Pages(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, bytes]] = {}
    headers_too: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        body = self.pages.get(self.path.partition("?")[0])
        self.send_response(404 if body is None else 200)
        self.send_header("content-length", str(len(body or b"")))
        for name, value in self.headers_too.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body or b"")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    _Pages.pages, _Pages.headers_too = {}, {}


INFO = {
    "/info": {"model_id": "a/b", "version": "3.3.7", "max_input_tokens": 1023, "max_total_tokens": 1024,
              "max_batch_total_tokens": 2048, "max_concurrent_requests": 128, "docker_label": None, "router": "tgi"},
    "/v1/models": {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 4096,
                                              "meta": {"n_ctx_train": 32768, "n_params": 5}}]},
    "/version": {"version": "0.11.0"},
    "/props": {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4, "model_path": "/m.gguf",
               "build_info": "b6000-abc"},
    "/slots": [{"id": 0, "n_ctx": 1024, "is_processing": False}],
    "/get_model_info": {"model_path": "m", "is_generation": True},
    "/model_info": {"model_path": "m"},
    "/server_info": {"version": "0.5.1", "max_total_num_tokens": 9000, "context_length": 4096},
    "/get_server_info": {"version": "0.5.1", "max_total_num_tokens": 9000, "context_length": 4096},
    "/health": {"status": "ok"},
}  # fmt: skip


def test_no_page_about_a_service_is_a_traceback(pages: str) -> None:
    """Who answers is found out, or said in one line, whatever its pages hold."""
    random_ = random.Random(SEED)
    sglang = ["/v1/models", "/get_model_info", "/server_info", "/get_server_info", "/model_info"]
    groups = (["/info"], ["/v1/models", "/version"], ["/v1/models", "/props", "/slots"], sglang, list(INFO))
    for _ in range(60 * MANY):
        chosen = random_.choice(groups)
        _Pages.pages = {path: json.dumps(INFO[path]).encode() for path in [*chosen, "/health"]}
        for path in random_.sample(chosen, random_.choice((1, 1, len(chosen)))):
            document = damaged_document(INFO[path], random_)
            _Pages.pages[path] = json.dumps(document).encode()
            if random_.random() < 0.2:
                _Pages.pages[path] = damaged_bytes(_Pages.pages[path], random_)
        with contextlib.suppress(HarnessError):
            identify(Endpoint(pages))


def test_a_page_that_unpacks_to_gigabytes_is_given_up(pages: str) -> None:
    """Bounded after decoding, at the size of the bound."""
    import zlib

    packer = zlib.compressobj(wbits=31)
    zeros = b"\0" * (1 << 20)
    packed = [packer.compress(zeros) for _ in range(8 * (MOST_BYTES >> 20))]
    _Pages.pages = {"/info": b"".join(packed) + packer.flush()}
    _Pages.headers_too = {"content-encoding": "gzip"}
    assert len(_Pages.pages["/info"]) < 1 << 20
    with pytest.raises(NoAnswer, match="more than 16 MiB"), Client(Endpoint(pages)) as client:
        client.get("/info")
