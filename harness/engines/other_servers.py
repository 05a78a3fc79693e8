"""Servers that are recognised but never started here, by their OpenAPI page.

llama-cpp-python 0.3.36 (llama_cpp/server/app.py), `transformers serve` 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.catalog.limits import Limits
from harness.engines.base import EngineInfo
from harness.engines.client import Client
from harness.engines.openai_engine import is_emulated, served_models
from harness.engines.payload import as_mapping, as_text


def llama_cpp_python(client: Client) -> EngineInfo | None:
    """The server in Python of llama-cpp-python, which is not llama.cpp's own. Raises NoAnswer."""
    page = _openapi(client)
    if "/extras/tokenize/count" not in as_mapping(page.get("paths")):
        return None
    version = as_text(as_mapping(page.get("info")).get("version"))
    return _known_as("llama-cpp-python", client, _LLAMA_CPP_PYTHON, version)


_LLAMA_CPP_PYTHON = (
    "llama-cpp-python serves one request at a time, and cuts a running stream off when another request comes, unless it"
    " was started with --interrupt_requests false"
)


def transformers_serve(client: Client) -> EngineInfo | None:
    """`transformers serve`, which tells no release. Raises NoAnswer."""
    paths = as_mapping(_openapi(client).get("paths"))
    if not {"/load_model", "/v1/chat/completions", "/v1/models"} <= set(paths):
        return None
    return _known_as("transformers", client, _TRANSFORMERS)


_TRANSFORMERS = "transformers serve answers one request after another unless it was started with --continuous-batching"


def _openapi(client: Client) -> Mapping[str, Any]:
    """What FastAPI publishes of a server's routes; empty where there is no such page."""
    return as_mapping(client.page("/openapi.json").document)


def _known_as(name: str, client: Client, caution: str, version: str | None = None) -> EngineInfo:
    names = tuple(each.name for each in served_models(client))
    model = names[0] if names else None
    return EngineInfo(name, version, model, is_emulated(client), Limits(), model_names=names, caution=caution)
