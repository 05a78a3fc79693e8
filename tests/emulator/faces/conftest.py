"""Faces as processes: one of each for all tests that leave it as it was, and how to read their logs and streams."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.emulator.conftest import Emulator, Reply
from tests.waiting import until

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
LLAMACPP = f"{MODEL}-GGUF:Q8_0"
GPU = ("--gpu", "L4")
ARGUMENTS = {
    "vllm": (MODEL, "--max-model-len", "2048"),
    "sglang": ("--model-path", MODEL, "--context-length", "2048", "--enable-metrics"),
    "llamacpp": ("-hf", LLAMACPP, "-c", "8192", "-np", "4", "--metrics"),
}
FACES = tuple(ARGUMENTS)


def start(face: str, *more: str, speed: str = "100", wait: bool = True, **options: Any) -> Emulator:
    """A face with its usual arguments and some more; a hundred times as fast as an L4."""
    running = Emulator(*ARGUMENTS[face], *GPU, "--speed", speed, *more, face=face, wait=wait, **options)
    if wait:
        ready(running)
    return running


def ready(running: Emulator) -> None:
    """Wait until it answers."""
    until(lambda: running.ask("GET", "/health").status == 200)


@pytest.fixture(scope="session")
def vllm() -> Iterator[Emulator]:
    running = start("vllm")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def sglang() -> Iterator[Emulator]:
    running = start("sglang")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def llamacpp() -> Iterator[Emulator]:
    running = start("llamacpp")
    yield running
    running.stop()


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Emulator:
    """Each face in turn."""
    server: Emulator = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def begin() -> Iterator[Callable[..., Emulator]]:
    """Start faces that end with the test."""
    started: list[Emulator] = []

    def new(name: str, *more: str, **options: Any) -> Emulator:
        started.append(start(name, *more, **options))
        return started[-1]

    yield new
    for each in started:
        each.stop(9)


def failing(face: str, *more: str, plain: bool = False, **options: Any) -> tuple[int, str]:
    """The exit code and everything that a start said which comes to nothing."""
    arguments = more if plain else (*ARGUMENTS[face], *GPU, *more)
    running = Emulator(*arguments, face=face, wait=False, **options)
    try:
        code = running.ended()
    finally:
        running.process.kill()
    return code, "\n".join(running.lines) + running.stderr


def chat(words: str = "hello there", most: int | None = 4, **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": words}], **more}
    return body if most is None else {**body, "max_tokens": most}


def prompt(words: int, first: str = "start") -> str:
    """A text of so many tokens besides `<s>`."""
    return " ".join([first, *["the"] * (words - 1)])


def frames(reply: Reply) -> list[Any]:
    """The JSON of all frames of a stream but `[DONE]`."""
    return [json.loads(event.removeprefix("data: ")) for event in reply.events if event != "data: [DONE]"]


def shape(reply: Reply) -> list[str]:
    """The frames as they stand, with ids, times and figures of the clock made alike."""
    text = reply.body.decode()
    text = re.sub(r'"id":"[^"]*"', '"id":"ID"', text)
    text = re.sub(r'"created":\d+', '"created":0', text)
    text = re.sub(r'("(?:prompt|predicted)_(?:ms|per_token_ms|per_second)"):[0-9.e-]+', r"\1:0", text)
    return [part for part in text.split("\n\n") if part]


def samples(server: Emulator) -> dict[str, float]:
    """The samples of /metrics by name, labels left out; of several the sum."""
    found: dict[str, float] = {}
    for line in server.ask("GET", "/metrics").body.decode().splitlines():
        if line and not line.startswith("#"):
            name, value = re.sub(r"\{[^}]*\}", "", line).rsplit(" ", 1)
            found[name] = found.get(name, 0.0) + float(value)
    return found


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Results of acts that run at the same time."""
    results: list[Any] = [None] * count

    def one(number: int) -> None:
        results[number] = act(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def said(server: Emulator, text: str) -> str:
    """The whole log, stdout first, once this is in it: lines arrive a little after the answers that they tell of."""

    def log() -> str:
        return "\n".join(server.lines) + server.stderr

    until(lambda: text in log())
    return log()
