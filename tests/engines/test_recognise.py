"""Who answers at an address: each engine finds itself in its own pages, and in nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines import ENGINES, engine_named
from harness.engines.identify import recognise
from tests.engines.pages import serving

# What each answers, as far as anybody looks at it; a name that several list, and pages that several have.
TGI = {
    "GET /info": {"model_id": "org/chat", "max_total_tokens": 4096, "max_input_tokens": 4095, "version": "3.3.7"},
    "GET /v1/models": {"object": "list", "data": [{"id": "org/chat", "object": "model", "owned_by": "org/chat"}]},
    "GET /health": "",
}
VLLM = {
    "GET /v1/models": {"data": [{"id": "chat", "owned_by": "vllm", "root": "org/chat", "max_model_len": 4096}]},
    "GET /version": {"version": "0.32.0"},
    "GET /health": "",
    "GET /metrics": "vllm:num_requests_running 0.0\n",
}
SGLANG = {
    "GET /v1/models": {"data": [{"id": "chat", "owned_by": "sglang", "root": "chat", "max_model_len": 4098}]},
    "GET /server_info": {"version": "0.5.23", "model_path": "org/chat", "max_total_num_tokens": 90000},
    "GET /health": "",
}
LLAMACPP: dict[str, Any] = {
    "GET /props": {
        "total_slots": 4,
        "default_generation_settings": {"n_ctx": 4096},
        "build_info": "b11549-0c1e57098",
        "model_path": "/models/chat.gguf",
    },
    "GET /v1/models": {"object": "list", "data": [{"id": "chat", "owned_by": "llamacpp", "meta": {"n_ctx": 4096}}]},
    "GET /health": {"status": "ok"},
}
LLAMA_CPP_PYTHON = {"GET /v1/models": {"object": "list", "data": [{"id": "chat", "owned_by": "me", "permissions": []}]}}
BARE = {"GET /v1/models": {"data": [{"id": "chat"}]}, "GET /version": {"version": "0.32.0"}, "GET /health": ""}
A_PROXY = {"GET /v1/models": {"data": [{"id": "chat", "owned_by": "openai"}]}, "GET /info": {"name": "gateway"}}

EVERYBODY: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "tgi": (TGI, {}),
    "vllm": (VLLM, {"server": "uvicorn"}),
    "sglang": (SGLANG, {"server": "uvicorn"}),
    "llamacpp": (LLAMACPP, {"server": "llama.cpp"}),
    "llama-cpp-python": (LLAMA_CPP_PYTHON, {"server": "uvicorn"}),
    "bare": (BARE, {"server": "uvicorn"}),
    "proxy": (A_PROXY, {"server": "uvicorn"}),
    "nothing": ({}, {}),
}


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("engine", [engine.name for engine in ENGINES])
def test_engine_finds_itself_alone(engine: str, who: str) -> None:
    """Asked by itself, in whatever order: no engine takes another's pages for its own."""
    pages, headers = EVERYBODY[who]
    with serving(pages, headers) as served:
        found = engine_named(engine).recognise(served.client())
    assert (found.engine if found else None) == (engine if engine == who else None)


@pytest.mark.parametrize("who", [engine.name for engine in ENGINES])
def test_model_and_its_longest_request_are_told(who: str) -> None:
    """Whoever answers: the name to ask by, and that it is no emulator."""
    pages, headers = EVERYBODY[who]
    with serving(pages, headers) as served:
        found = recognise(served.client())
    assert found is not None
    assert (found.engine, found.emulated) == (who, False)
    assert found.model_names in (("chat",), ("tgi",))
    assert found.limits.max_total_tokens == 4096


@pytest.mark.parametrize("who", [engine.name for engine in ENGINES if engine.name != "tgi"])
def test_emulator_says_so_in_every_face(who: str) -> None:
    """By one header, whichever engine it plays; TGI's face says so in /info besides."""
    pages, headers = EVERYBODY[who]
    with serving(pages, {**headers, "x-harness-emulator": "1"}) as served:
        found = recognise(served.client())
    assert found is not None
    assert found.emulated
