"""What a service adds to a prompt, and which words it counts as one token each, where only its answers tell."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from harness.engines.endpoint import Endpoint
from harness.engines.framing import framed
from harness.engines.vocabulary import vocabulary_of
from harness.workload.prompts import prompt
from harness.workload.vocabulary import CANDIDATES, Vocabulary, assumed_vocabulary

TEMPLATE = 9  # tokens around the messages


def tokens(text: str, share: int) -> int:
    """As a tokenizer of its own kind has it: of so many words one is three tokens, and a first word is one more."""
    words = text.split()
    return 1 + text.count("\n\n") + sum(3 if CANDIDATES.index(word) % share == share - 1 else 1 for word in words)


class _Counts(BaseHTTPRequestHandler):
    """Has no tokenizer route, and counts prompts in its answers, if it does. share: as `tokens` has it."""

    share: ClassVar[int] = 5
    counts: ClassVar[bool] = True
    asked: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        chat = self.path == "/v1/chat/completions"
        known = chat or self.path == "/v1/completions"
        answer: dict[str, Any] = {"choices": []}
        if known:
            self.asked.append(body)
            texts = [each["content"] for each in body["messages"]] if chat else [body["prompt"]]
            count = sum(tokens(text, self.share) for text in texts) + (TEMPLATE if chat else 0)
            answer["usage"] = {"prompt_tokens": count} if self.counts else None
        told = json.dumps(answer).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def counting(share: int, *, counts: bool = True) -> Iterator[Endpoint]:
    _Counts.share, _Counts.counts, _Counts.asked = share, counts, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counts) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}", model_name="m")
        server.shutdown()


def measured(endpoint: Endpoint, api: str) -> Vocabulary:
    plain = vocabulary_of(endpoint)
    assert plain == assumed_vocabulary()
    return framed(plain, endpoint, api, system=False)


@pytest.mark.parametrize(("share", "most"), [(10_000, 5), (7, 48)])
@pytest.mark.parametrize(("api", "added"), [("openai-chat", TEMPLATE + 1), ("openai-completions", 1)])
def test_prompts_are_as_long_as_asked_where_only_answers_tell(api: str, added: int, share: int, most: int) -> None:
    """By the service's own count, which a few tokens are asked for."""
    with counting(share) as endpoint:
        words = measured(endpoint, api)
        assert len(_Counts.asked) <= most + 2
    assert words.describe().endswith("words, each one token by the counts of the service's answers")
    assert (words.framed, words.overhead) == (True, added)
    for length in (20, 200, 3000):
        text, told = prompt(words, length, 1, "test", 3)
        assert tokens(text, share) + added - 1 == told == length


@pytest.mark.parametrize(("share", "counts"), [(2, True), (7, False)])
def test_what_no_answer_tells_stays_an_assumption(share: int, counts: bool) -> None:
    """Words that are hardly ever one token, or answers without counts."""
    with counting(share, counts=counts) as endpoint:
        words = measured(endpoint, "openai-chat")
    assert not words.checked
    assert words.words == assumed_vocabulary().words
