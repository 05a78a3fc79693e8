"""llama-server by its pages: who answers, what it allows, and what it is doing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.catalog.limits import Limits
from harness.engines import engine_named
from harness.engines.gauges import Gauges
from harness.engines.identify import recognise
from tests.engines.pages import serving

ENGINE = engine_named("llamacpp")
PROPS: dict[str, Any] = {
    "default_generation_settings": {"params": {"temperature": 0.8}, "n_ctx": 2048},
    "total_slots": 2,
    "model_alias": "chat",
    "model_path": "/models/chat/chat.gguf",
    "build_info": "b11549-0a1b2c3",
    "endpoint_slots": True,
}
MODELS = {"object": "list", "data": [{"id": "chat", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192}}]}
PAGES = {"GET /props": PROPS, "GET /v1/models": MODELS}
HEADERS = {"Server": "llama.cpp"}


def test_recognised_with_its_limits() -> None:
    """One slot's share is the longest request; a prompt may take all of it but one token."""
    with serving(PAGES, HEADERS) as pages:
        info = ENGINE.recognise(pages.client())
    assert info is not None
    assert (info.engine, info.version, info.model_id, info.emulated) == ("llamacpp", "b11549", "chat", False)
    assert info.limits == Limits(max_input_tokens=2047, max_total_tokens=2048, max_batch_size=2)
    assert info.model_names == ("chat",)


def test_recognised_behind_a_proxy_and_by_its_emulator() -> None:
    """The header `Server` may be another's; the emulator says so in one of its own."""
    with serving(PAGES) as pages:
        assert ENGINE.recognise(pages.client()) is not None
    with serving(PAGES, {"x-harness-emulator": "1"}) as pages:
        info = recognise(pages.client())
    assert info is not None
    assert (info.engine, info.emulated) == ("llamacpp", True)


def test_build_that_does_not_know_itself() -> None:
    """It has no version, and is llama.cpp all the same."""
    with serving({**PAGES, "GET /props": {**PROPS, "build_info": "b0-unknown"}}) as pages:
        info = ENGINE.recognise(pages.client())
    assert info is not None
    assert info.version is None


def test_router_tells_no_limits() -> None:
    """llama-server without a model serves several, each under its own name."""
    router = {
        "role": "router",
        "model_alias": "llama-server",
        "default_generation_settings": {"n_ctx": 0},
        "build_info": "b11549-0a1b2c3",
    }
    models = {"data": [{"id": "one"}, {"id": "two"}]}
    with serving({"GET /props": router, "GET /v1/models": models}, HEADERS) as pages:
        info = ENGINE.recognise(pages.client())
    assert info is not None
    assert (info.model_id, info.limits, info.model_names) == (None, Limits(), ("one", "two"))


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"GET /props": (503, {"error": {"code": 503, "message": "Loading model"}})},
        {"GET /props": (401, {"error": {"code": 401, "message": "Invalid API Key"}}), "GET /v1/models": MODELS},
        {"GET /props": {"build_info": "of something else"}},
        {"GET /props": {"total_slots": 4}},
        {"GET /props": [PROPS]},
        {"GET /v1/models": MODELS, "GET /info": {"model_id": "m", "max_total_tokens": 1}},
        {"GET /v1/models": {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}},
    ],
)
def test_others_and_servers_that_are_not_ready_are_not_taken_for_it(pages: dict[str, Any]) -> None:
    """By /props alone, when it has what only llama.cpp's has."""
    with serving(pages, HEADERS) as served:
        assert ENGINE.recognise(served.client()) is None


METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1200
llamacpp:prompt_tokens_cached_total 300
llamacpp:n_decode_total 44
llamacpp:predicted_tokens_seconds 12.5
llamacpp:requests_processing 2
llamacpp:requests_deferred 3
"""
SLOTS = [
    {"id": 0, "n_ctx": 2048, "is_processing": True, "n_prompt_tokens": 1000, "n_prompt_tokens_processed": 768},
    {"id": 1, "n_ctx": 2048, "is_processing": True, "n_prompt_tokens": 24},
    {"id": 2, "n_ctx": 2048, "is_processing": False, "n_prompt_tokens": 512},
    {"id": 3, "n_ctx": 2048, "is_processing": False},
]


def test_gauges_of_both_pages() -> None:
    """What runs and waits, tokens of the running slots, prompt tokens with those that were cached, steps."""
    assert ENGINE.read_gauges(METRICS, [json.dumps(SLOTS)]) == Gauges(
        running=2, waiting=3, kv_tokens=1024, cache_queries=1500, cache_hits=300, steps=44
    )


@pytest.mark.parametrize("slots", ["", "{}", "[1]", '[{"is_processing": true}]', "no JSON"])
def test_cache_in_use_is_unknown_without_the_slots(slots: str) -> None:
    """--no-slots, or a page in another form."""
    assert ENGINE.read_gauges(METRICS, [slots]).kv_tokens is None
    assert ENGINE.read_gauges(METRICS).kv_tokens is None


def test_idle_server_uses_nothing_of_its_cache() -> None:
    """What idle slots keep of earlier requests gives way."""
    assert ENGINE.read_gauges(METRICS, [json.dumps(SLOTS[2:])]).kv_tokens == 0


def test_older_page_tells_no_share_of_the_prefix_cache() -> None:
    """Before the cached tokens were counted, those computed alone say nothing of it."""
    page = METRICS.replace("llamacpp:prompt_tokens_cached_total 300\n", "")
    gauges = ENGINE.read_gauges(page)
    assert (gauges.cache_queries, gauges.cache_hits) == (None, None)
    assert ENGINE.read_gauges("") == Gauges()
