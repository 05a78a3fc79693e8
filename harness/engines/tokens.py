"""Counts the tokens of a text by the service's own tokenizer, by whichever known route it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines.client import Client, NoAnswer

Span = tuple[int, int]
Spans = Callable[[str], Sequence[Span]]
Count = Callable[[str], int]

_SAMPLE = "time year"  # more than one token in any vocabulary, few in all


@dataclass(frozen=True)
class Route:
    """One form of a tokenizer route. body: of the call, from the text and the model's name. count: tokens in the
    answer's document. spans: for each token the characters [start, stop); None where the route does not tell places.

    Both raise ValueError, KeyError or TypeError where the document is not such an answer.
    """

    path: str
    body: Callable[[str, str | None], Mapping[str, Any]]
    count: Callable[[Any], int]
    spans: Callable[[Any], Sequence[Span]] | None = None


@dataclass(frozen=True)
class Tokenizer:
    """A service's own tokenizer. count: tokens of a text as a bare prompt, special tokens that it adds included.

    spans: None where it does not tell places. Both raise NoAnswer, and ValueError where the answer cannot be read.
    """

    route: Route
    count: Count
    spans: Spans | None


def find_tokenizer(client: Client, model_name: str | None = None) -> Tokenizer | None:
    """The service's tokenizer; None where it has none of the known routes. Raises NoAnswer where nobody answers."""
    for route in ROUTES:
        try:
            if _ask(client, route, _SAMPLE, model_name, route.count) > 0:
                return _tokenizer(client, route, model_name)
        except ValueError:
            continue
    return None


def _tokenizer(client: Client, route: Route, model_name: str | None) -> Tokenizer:
    spans = route.spans
    return Tokenizer(
        route,
        lambda text: _ask(client, route, text, model_name, route.count),
        None if spans is None else lambda text: _ask(client, route, text, model_name, spans),
    )


def _ask(client: Client, route: Route, text: str, model_name: str | None, read: Callable[[Any], Any]) -> Any:
    reply = client.post(route.path, route.body(text, model_name))
    if not reply.ok:
        raise ValueError(f"{route.path} answers {reply.status}")
    try:
        return read(reply.document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{route.path} answers something else") from error


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no count")
    return value


def _listed(value: Any) -> int:
    if not isinstance(value, list):
        raise ValueError("no list")
    return len(value)


def _tgi_spans(document: Any) -> list[Span]:
    return [(int(token["start"]), int(token["stop"])) for token in document]


def named(model_name: str | None) -> dict[str, str]:
    return {} if model_name is None else {"model": model_name}


ROUTES: tuple[Route, ...] = (
    # TGI: a list of tokens with their places
    Route("/tokenize", lambda text, name: {"inputs": text}, _listed, _tgi_spans),
    # vLLM, SGLang
    Route("/tokenize", lambda text, name: {**named(name), "prompt": text}, lambda page: _whole_number(page["count"])),
    # llama.cpp: without `add_special` the token that begins a text would be missing
    Route("/tokenize", lambda text, name: {"content": text, "add_special": True}, lambda page: _listed(page["tokens"])),
    # llama-cpp-python
    Route("/extras/tokenize/count", lambda text, name: {"input": text}, lambda page: _whole_number(page["count"])),
)
"""Tried in this order; a route of another engine answers an error, or no tokens."""


def prompt_tokens(client: Client, text: str, model_name: str | None, timeout: float) -> int | None:
    """The length of a prompt that a generated answer tells: for services without a tokenizer route. None without."""
    body = {**named(model_name), "prompt": text, "max_tokens": 1, "temperature": 0}
    try:
        document = client.post("/v1/completions", body, timeout=timeout).document
        return _whole_number(document["usage"]["prompt_tokens"])
    except (NoAnswer, ValueError, KeyError, TypeError):
        return None
