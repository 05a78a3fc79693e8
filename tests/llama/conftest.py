"""Servers of llama.cpp that end with the test that started them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.llama.running import LlamaServer

Launch = Callable[..., LlamaServer]


@pytest.fixture
def launch(llama_server: Path, llama_model: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start llama-server with the tiny model, or with the model given."""
    started: list[LlamaServer] = []

    def start(*arguments: str, model: Path = llama_model, wait: bool = True, **environment: str) -> LlamaServer:
        log = tmp_path / f"llama-server-{len(started)}.log"
        started.append(LlamaServer(llama_server, log, "-m", str(model), *arguments, wait=wait, **environment))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="module")
def server(llama_server: Path, llama_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """One server for the tests that leave it as it was: two slots of 2048 tokens each."""
    log = tmp_path_factory.mktemp("llama-log") / "log"
    arguments = ("-m", str(llama_model), "-c", "4096", "-np", "2", "--metrics", "-lv", "4")
    running = LlamaServer(llama_server, log, *arguments)
    yield running
    running.stop()
