"""The face beside llama.cpp's own server: the same model file, arguments and requests, answers of the same form."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.llama.running import CHAT, LlamaServer

ARGUMENTS = ("-c", "4096", "-np", "2", "--metrics", "-lv", "4")


@dataclass(frozen=True)
class Pair:
    real: LlamaServer
    face: LlamaServer
    program: Path


@pytest.fixture(scope="module")
def pair(llama_server: Path, llama_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both with the same arguments."""
    folder = tmp_path_factory.mktemp("pair")
    program = folder / "face"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness.emulator --engine llamacpp "$@"\n')
    program.chmod(0o755)
    arguments = ("-m", str(llama_model), *ARGUMENTS)
    real = LlamaServer(llama_server, folder / "real.log", *arguments)
    face = LlamaServer(program, folder / "face.log", *arguments)
    yield Pair(real, face, program)
    real.stop()
    face.stop()


def form(value: Any) -> Any:
    """A JSON value by its keys and types; of a list its first."""
    if isinstance(value, dict):
        return {key: form(each) for key, each in value.items()}
    if isinstance(value, list):
        return [form(each) for each in value[:1]]
    return type(value).__name__


def more(face: Any, real: Any, at: str = "") -> list[str]:
    """Where the face's form has what the real one has not. It may leave out."""
    if isinstance(face, dict) and isinstance(real, dict):
        own = [f"{at}.{key}" for key in face if key not in real]
        return own + [each for key in face if key in real for each in more(face[key], real[key], f"{at}.{key}")]
    if isinstance(face, list) and isinstance(real, list):
        return more(face[0], real[0], f"{at}[]") if face and real else []
    return [] if face == real else [f"{at}: {face} / {real}"]


WORDS = {"messages": [{"role": "user", "content": "time year"}]}
CHATS = {**WORDS, "max_tokens": 3, "ignore_eos": True}
ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/props", None),
    ("GET", "/slots", None),
    ("GET", "/v1/models", None),
    ("POST", "/tokenize", {"content": "time year", "with_pieces": True}),
    ("POST", "/detokenize", {"tokens": [500, 501]}),
    ("POST", "/apply-template", CHATS),
    ("POST", f"{CHAT}/input_tokens", CHATS),
    ("POST", CHAT, CHATS),
    ("POST", CHAT, {**CHATS, "logprobs": True, "top_logprobs": 2}),
    ("POST", "/v1/completions", {"prompt": "time year", "max_tokens": 3}),
]


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=lambda value: str(value)[:30])
def test_answers_have_the_same_form(method: str, path: str, body: Any, pair: Pair) -> None:
    """Status, headers but two, and nothing in the face's JSON that the real one has not, or has as another type."""
    real, face = pair.real.ask(method, path, body), pair.face.ask(method, path, body)
    assert (real.status, face.status) == (200, 200)
    assert set(face.headers) - set(real.headers) == {"x-harness-emulator", "date"}
    assert set(real.headers) <= set(face.headers)
    assert more(form(face.json()), form(real.json())) == []


REFUSED: list[tuple[str, str, Any]] = [
    ("GET", "/nothing", None),
    ("GET", CHAT, None),
    ("POST", "/v1/models", {}),
    ("POST", CHAT, {}),
    ("POST", CHAT, {**CHATS, "max_tokens": -2}),
    ("POST", CHAT, {**CHATS, "max_tokens": "many"}),
    ("POST", CHAT, {**CHATS, "messages": [{"content": "x"}]}),
    ("POST", "/v1/completions", {}),
    ("POST", "/v1/completions", {"prompt": "time" + " time" * 2999}),
]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=lambda value: str(value)[:30])
def test_refusals_are_the_same(method: str, path: str, body: Any, pair: Pair) -> None:
    """To the byte."""
    real, face = pair.real.ask(method, path, body), pair.face.ask(method, path, body)
    assert (face.status, face.text) == (real.status, real.text)
    assert face.headers["connection"] == real.headers["connection"] == "close"


STREAMED: list[tuple[str, Any]] = [
    (CHAT, CHATS),
    (CHAT, {**CHATS, "timings_per_token": True}),
    (CHAT, {**CHATS, "timings_per_token": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": "time year", "max_tokens": 3}),
    ("/v1/completions", {"prompt": "time year", "max_tokens": 3, "timings_per_token": True}),
]


@pytest.mark.parametrize(("path", "body"), STREAMED, ids=lambda value: str(value)[:10])
def test_streams_have_the_same_frames(path: str, body: Any, pair: Pair) -> None:
    """As many, each with the same keys in the same order, and the same counts in them."""
    real, face = (
        each.ask("POST", path, {**body, "stream": True, "cache_prompt": False}) for each in (pair.real, pair.face)
    )
    assert (len(face.frames), face.frames[-1]) == (len(real.frames), real.frames[-1])
    for ours, theirs in zip(face.events(), real.events(), strict=True):
        assert json.dumps(form(ours)) == json.dumps(form(theirs))
        for name in ("predicted_n", "cache_n"):
            assert ours.get("timings", {}).get(name) == theirs.get("timings", {}).get(name)
        assert ours.get("usage", {}).get("completion_tokens") == theirs.get("usage", {}).get("completion_tokens")


def test_slots_tell_the_same_while_they_work(pair: Pair) -> None:
    """And afterwards."""

    def slots(server: LlamaServer) -> tuple[Any, Any]:
        with server.streaming(20, max_tokens=1500, ignore_eos=True) as stream:
            stream.readline()
            busy = server.ask("GET", "/slots").json()
        return [each for each in busy if each["is_processing"]], server.ask("GET", "/slots").json()

    for ours, theirs in zip(slots(pair.face), slots(pair.real), strict=True):
        assert more(form(ours), form(theirs)) == []


def test_metrics_have_the_same_names(pair: Pair) -> None:
    """Each with its type, none more, none less."""
    pages = [each.ask("GET", "/metrics").text.splitlines() for each in (pair.face, pair.real)]
    ours, theirs = ({line for line in page if line.startswith("# TYPE")} for page in pages)
    assert ours == theirs
    assert len(ours) > 10


def told(log: str) -> list[str]:
    """A log's lines without times, the function that says them, devices, and blanks; figures of bytes left out."""
    lines = []
    for line in log.splitlines():
        found = re.match(r"[\d.]+ ([IWE] )(.*)", line)
        if found:
            text = re.sub(r"^(srv|slot|cmn) +\S+: ", r"\1 ", found[2])
            text = re.sub(r"CUDA0|CPU_Mapped|CPU", "DEVICE", text)
            lines.append(found[1] + re.sub(r"\s+", " ", re.sub(r"[\d.]+ MiB", "MiB", text)))
    return lines


def test_a_start_logs_what_the_real_one_logs(pair: Pair) -> None:
    """Every line of the face but those of its device, its release and its port, in the same order."""
    ours, theirs = (told(each.log.partition("listening on")[0]) for each in (pair.face, pair.real))
    known = [line for line in ours if not re.search("build_info|offloaded|DEVICE : |security: ", line)]
    places = [theirs.index(line) for line in known]
    assert places == sorted(places)
    assert len(known) > 12


def test_the_pool_is_told_alike(pair: Pair) -> None:
    """Cells, layers, slots, streams and bytes to the digit."""
    ours, theirs = (re.search(r"llama_kv_cache: size = .*", each.log) for each in (pair.face, pair.real))
    assert ours is not None
    assert theirs is not None
    assert ours[0] == theirs[0]


def test_a_cut_file_is_refused_alike(pair: Pair, llama_server: Path, llama_model: Path, tmp_path: Path) -> None:
    """With the same exit code, by the same tensor."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(llama_model.read_bytes()[:-100])
    ends = []
    for program in (llama_server, pair.program):
        server = LlamaServer(program, tmp_path / "log", "-m", str(path), wait=False)
        code = server.process.wait(30)
        found = re.search(r"error loading model: tensor .*", server.log)
        ends.append((code, found and found[0], server.log.rstrip().endswith("exiting due to model loading error")))
    assert ends[0] == ends[1]
    assert ends[1][1] is not None
