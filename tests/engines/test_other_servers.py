"""Servers that nobody here starts are known by name, and none is taken for an engine or for another."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engines.identify import default_api, recognise
from harness.serve.serving import open_service
from harness.serve.target import Target
from tests.engines.pages import serving


def openapi(*paths: str, **info: str) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "FastAPI", "version": "0.1.0", **info},
        "paths": {path: {} for path in paths},
    }


OPENAI = ("/v1/completions", "/v1/chat/completions", "/v1/models")
LLAMA_CPP_PYTHON = {
    "GET /openapi.json": openapi(
        *OPENAI, "/extras/tokenize", "/extras/tokenize/count", title="🦙 llama.cpp Python API", version="0.3.36"
    ),
    "GET /v1/models": {"data": [{"id": "/srv/tiny.gguf", "object": "model", "owned_by": "me", "permissions": []}]},
}
TRANSFORMERS = {
    "GET /openapi.json": openapi(*OPENAI, "/v1/responses", "/v1/audio/transcriptions", "/load_model", "/health"),
    "GET /v1/models": {"data": [{"id": "org/tiny", "owned_by": "org", "object": "model", "created": 0}]},
    "GET /health": {"status": "ok"},
}
SOMETHING = {
    "GET /openapi.json": openapi(*OPENAI, "/health"),
    "GET /v1/models": {"data": [{"id": "m", "owned_by": "somebody"}]},
}
WITHOUT_OPENAPI = {"GET /v1/models": {"data": [{"id": "m"}]}}


@pytest.mark.parametrize(
    ("pages", "engine", "version", "model"),
    [
        (LLAMA_CPP_PYTHON, "llama-cpp-python", "0.3.36", "/srv/tiny.gguf"),
        (TRANSFORMERS, "transformers", None, "org/tiny"),
        (SOMETHING, "openai-compatible", None, "m"),
        (WITHOUT_OPENAPI, "openai-compatible", None, "m"),
    ],
)
def test_each_is_known_by_its_own_page(pages: dict[str, Any], engine: str, version: str | None, model: str) -> None:
    """With the names by which its models may be asked for, and by the API that all of them speak."""
    with serving(pages, {"server": "uvicorn"}) as served:
        info = recognise(served.client())
    assert info is not None
    assert (info.engine, info.version, info.model_id, info.model_names) == (engine, version, model, (model,))
    assert not info.emulated
    assert default_api(info) == "openai-chat"


@pytest.mark.parametrize(
    ("pages", "said"),
    [(LLAMA_CPP_PYTHON, "--interrupt_requests false"), (TRANSFORMERS, "--continuous-batching"), (SOMETHING, None)],
)
def test_who_measures_by_url_is_told_what_such_a_server_does(pages: dict[str, Any], said: str | None) -> None:
    """Before the load: otherwise nearly all of it fails, or waits, for a reason that its answers do not tell."""
    lines: list[str] = []
    with serving(pages) as served, open_service(Target(url=served.url), say=lines.append):
        pass
    assert len(lines) == (0 if said is None else 1)
    assert said is None or said in lines[0]


def test_server_that_lists_no_model_keeps_its_name() -> None:
    """Whoever names a model may ask it all the same."""
    with serving({"GET /openapi.json": TRANSFORMERS["GET /openapi.json"]}) as served:
        info = recognise(served.client())
    assert info is not None
    assert (info.engine, info.model_id, info.model_names) == ("transformers", None, ())


@pytest.mark.parametrize("page", [[], "no JSON", {"paths": ["/load_model"]}, (500, {"paths": {"/load_model": {}}})])
def test_page_in_another_form_says_nothing(page: Any) -> None:
    """A server is not known by a page that is no OpenAPI document."""
    with serving({"GET /openapi.json": page}) as served:
        assert recognise(served.client()) is None
