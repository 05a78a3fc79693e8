"""What engines with OpenAI's routes share: /v1/models, one generated token, errors, the emulator's header.

An engine's folder asks these; identify.py does too, for servers that are known by their answers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.engines.api import Extras
from harness.engines.client import Client, NoAnswer, Reply
from harness.engines.payload import as_count, as_mapping, as_text, json_object

EMULATOR_HEADER = "x-harness-emulator"
"""On every answer of the emulator, whichever engine it plays."""


EXACT_AND_COUNTED = Extras(
    exact={"ignore_eos": True}, least="min_tokens", counts={"stream_options": {"continuous_usage_stats": True}}
)
"""What vLLM and SGLang know beside OpenAI's fields."""


@dataclass(frozen=True)
class ServedModel:
    """One entry of /v1/models. name: by which it is asked for. owner: `owned_by`. root: the repo or path behind the
    name. longest: tokens of prompt and answer together. raw: the whole entry.
    """

    name: str
    owner: str | None = None
    root: str | None = None
    longest: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


def served_models(client: Client) -> tuple[ServedModel, ...]:
    """The entries of /v1/models, in its order; empty where there is no such list. Raises NoAnswer."""
    data = as_mapping(client.page("/v1/models").document).get("data")
    entries = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    return tuple(_served(each) for each in entries if as_text(each.get("id")))


def _served(entry: Mapping[str, Any]) -> ServedModel:
    return ServedModel(
        name=str(entry["id"]),
        owner=as_text(entry.get("owned_by")),
        root=as_text(entry.get("root")),
        longest=as_count(entry.get("max_model_len")),
        raw=entry,
    )


def is_emulated(client: Client) -> bool:
    """Whether the emulator answers there, in whichever face. Raises NoAnswer."""
    return EMULATOR_HEADER in client.page("/v1/models").headers


def generate_once(client: Client, model_name: str, timeout: float) -> str | None:
    """Generate one token. None when that worked, else what went wrong. timeout: seconds.

    A healthy page proves nothing: an engine whose scheduler hangs still answers it. The chat route is asked where the
    bare one is not served.
    """
    body = {"model": model_name, "max_tokens": 1, "temperature": 0}
    said: list[str] = []
    for route, prompt in (
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ):
        try:
            reply = client.post(route, {**body, **prompt}, timeout=timeout)
        except NoAnswer as error:
            return error.found
        if has_token(reply):
            return None
        said.append(f"{route}: {error_text(reply)}")
        if reply.status not in (404, 405, 501):
            break
    return said[-1]


def has_token(reply: Reply) -> bool:
    """Whether an answer that is not a stream holds at least one token, by its own count or by its text."""
    document = as_mapping(reply.document)
    counted = as_count(as_mapping(document.get("usage")).get("completion_tokens"))
    choices = document.get("choices")
    first = as_mapping(choices[0]) if isinstance(choices, list) and choices else {}
    if counted is not None:
        return counted > 0 and bool(first)
    return bool(first.get("text") or as_mapping(first.get("message")).get("content"))


def error_text(reply: Reply) -> str:
    """`HTTP 404: The model `x` does not exist.`, from any of the forms that engines give an error."""
    payload = json_object(reply.body) or {}
    error = payload.get("error")
    told = as_mapping(error).get("message") or (error if isinstance(error, str) else None)
    text = as_text(told) or as_text(payload.get("message")) or as_text(payload.get("detail"))
    shown = text if text is not None else reply.text.strip() or "an empty body"
    return f"HTTP {reply.status}: {' '.join(shown.split())[:200]}"
