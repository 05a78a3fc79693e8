"""Measures what a service adds to a prompt's texts: its chat template, and the tokens that begin a text.

Measured on the service itself, with prompts whose words are one token each. For APIs that take messages by answers of
one token, whose `usage` counts the prompt as every request's does; for those that take one text by the tokenizer, or so
where there is none. Where no tokenizer told them, the words too are found by such answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.tokens import find_tokenizer, named
from harness.workload.request import Message, Request
from harness.workload.vocabulary import Vocabulary, told_vocabulary

_TIMEOUT = 30.0  # seconds for one token
_CHAT, _COMPLETIONS = "openai-chat", "openai-completions"
_QUESTIONS = 48  # of one token each, for words that are one token each; five where the first words all are

Count = Callable[[Request], int | None]


def framed(vocabulary: Vocabulary, endpoint: Endpoint, api: str, *, system: bool) -> Vocabulary:
    """The same words, with what the service adds to a prompt of this API; as it is where that cannot be told.

    system: prompts begin with a system message, for which some templates have another one of their own.
    """
    try:
        with Client(endpoint, _TIMEOUT) as client:
            count = None if api == _CHAT else _by_tokenizer(client, endpoint)
            if count is None and api in _PATHS:
                count = _by_usage(client, endpoint, api)
            if count is not None and not vocabulary.checked:
                vocabulary = _told(vocabulary, count)
            return _measured(vocabulary, count, system=system)
    except (NoAnswer, ValueError):
        return vocabulary


def _measured(vocabulary: Vocabulary, count: Count | None, *, system: bool) -> Vocabulary:
    if count is None:
        return vocabulary
    word = vocabulary.starters[0]
    before = (Message("system", word),) if system else ()
    turn = (Message("user", word), Message("assistant", word))
    first, second = (count(Request(word, 0, 1, messages=(*before, *said))) for said in ((), turn))
    if first is None or second is None:
        return vocabulary
    overhead, each = first - len(before) - 1, second - first - len(turn)
    if overhead < 0 or each < 0:
        return vocabulary  # no words of one token each, or no count of the prompt
    return replace(vocabulary, overhead=overhead, per_exchange=each, framed=True)


def _told(vocabulary: Vocabulary, count: Count) -> Vocabulary:
    """The words by such counts; as it is where the service tells none."""

    def tokens(text: str) -> int:
        told = count(Request(text, 0, 1))
        if told is None:
            raise ValueError("no count of the prompt")
        return told

    try:
        return told_vocabulary(tokens, _QUESTIONS)
    except ValueError:
        return vocabulary


_PATHS = {_CHAT: "/v1/chat/completions", _COMPLETIONS: "/v1/completions"}


def _by_usage(client: Client, endpoint: Endpoint, api: str) -> Count:
    def count(request: Request) -> int | None:
        asked = {"messages": request.as_messages()} if api == _CHAT else {"prompt": request.as_text()}
        body = {**named(endpoint.model_name), **asked, "max_tokens": 1, "temperature": 0}
        try:
            told = client.post(_PATHS[api], body).document["usage"]["prompt_tokens"]
        except (KeyError, TypeError):
            return None
        return told if isinstance(told, int) and not isinstance(told, bool) else None

    return count


def _by_tokenizer(client: Client, endpoint: Endpoint) -> Count | None:
    tokenizer = find_tokenizer(client, endpoint.model_name)
    return None if tokenizer is None else lambda request: tokenizer.count(request.as_text())
