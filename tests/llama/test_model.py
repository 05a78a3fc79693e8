"""The tiny model: that it is always the same one, and that llama.cpp reads it as meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.probe.prompts import WORDS
from harness.workload.vocabulary import CANDIDATES
from tests.llama.running import LlamaServer

pytest.importorskip("gguf", reason="needs the package gguf of the extra [dev]")

from tests.llama import model


def said_after(first: str) -> list[str]:
    """The words of the ring behind this one, up to the end of the turn."""
    vocabulary = model.tokenizer()
    words = [vocabulary.tokens[token].removeprefix("Ġ") for token in vocabulary.ring]
    return words[words.index(first) :][:-1]


def test_the_model_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Weights, words and metadata come from a fixed seed, so a failure can be seen again elsewhere."""
    first, second = model.write(tmp_path / "a.gguf").read_bytes(), model.write(tmp_path / "b.gguf").read_bytes()
    assert first == second
    assert len(first) < 4_000_000


def test_everyday_words_are_one_token_each(server: LlamaServer) -> None:
    """Behind a blank and alone, as in the vocabularies of real models; other text falls apart but is never lost."""
    words = [*CANDIDATES, *WORDS]
    for text in (" ".join(words), *words[::20]):
        assert len(server.ask("POST", "/tokenize", {"content": text}).json()["tokens"]) == len(text.split())
    strange = "Zürich’s 2,048 naïve tokens: ½\n\t東京 🙂"
    tokens = server.ask("POST", "/tokenize", {"content": strange}).json()["tokens"]
    assert server.ask("POST", "/detokenize", {"tokens": tokens}).json()["content"] == strange


def test_the_text_follows_the_ring_to_the_end_of_the_turn(server: LlamaServer) -> None:
    """Greedy text has a known answer: the words of the ring, one token each, then the end-of-turn token."""
    answer = server.chat(10, max_tokens=1000, stream=True)
    assert answer.words() == said_after(answer.words()[0])
    assert answer.events()[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_token_of_context_costs_what_the_model_says(server: LlamaServer) -> None:
    """The KV cache in the log is as many bytes as tokens times layers, heads and both keys and values come to."""
    (mebibytes,) = re.findall(r"KV buffer size = +([\d.]+) MiB", server.log)
    assert float(mebibytes) * 2**20 == 4096 * model.KV_BYTES_PER_TOKEN
