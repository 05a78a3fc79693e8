"""What holds for every face: that it says what it is, the same answers, lengths, streams, keys, faults, clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.emulator.conftest import Emulator
from tests.emulator.faces.conftest import ARGUMENTS, FACES, chat, failing, frames, ready, samples, start, together
from tests.waiting import until

RUNNING = {
    "vllm": "vllm:num_requests_running",
    "sglang": "sglang:num_running_reqs",
    "llamacpp": "llamacpp:requests_processing",
}


def test_every_answer_says_that_it_is_emulated(face: Emulator) -> None:
    """Pages, answers, streams and refusals alike."""
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/health", None),
        ("GET", "/v1/models", None),
        ("GET", "/metrics", None),
        ("GET", "/nothing", None),
        ("DELETE", "/v1/models", None),
        ("POST", "/v1/chat/completions", chat()),
        ("POST", "/v1/chat/completions", chat(stream=True)),
        ("POST", "/v1/chat/completions", b"no json"),
        ("POST", "/tokenize", {"prompt": "a", "content": "a"}),
    ]
    for method, path, body in asked:
        assert face.ask(method, path, body).headers["x-harness-emulator"] == "1", (method, path)


def test_an_unknown_engine_is_refused_by_name() -> None:
    """Exit code 2, with the ones that there are."""
    assert failing("triton", plain=True)[0] == 2
    assert "it knows tgi, vllm, sglang, llamacpp" in failing("triton", plain=True)[1]


@pytest.mark.parametrize("name", FACES)
def test_an_unknown_gpu_is_refused_with_the_nearest(name: str, launch: Callable[..., Emulator]) -> None:
    """From the variable that a stack sets, exit code 2."""
    running = launch(*ARGUMENTS[name], face=name, env={"HARNESS_EMULATOR_GPU": "L5"}, wait=False)
    assert running.ended() == 2
    assert "error: unknown GPU 'L5'. Did you mean L4" in running.stderr


def test_the_same_prompt_has_the_same_answer(face: Emulator) -> None:
    """Whole and streamed, and another one for another seed."""
    texts = {
        face.post("/v1/chat/completions", chat(most=8, temperature=0)).json()["choices"][0]["message"]["content"]
        for _ in range(2)
    }
    streamed = face.post("/v1/chat/completions", chat(most=8, temperature=0, stream=True))
    said = "".join(choice["delta"].get("content") or "" for each in frames(streamed) for choice in each["choices"])
    assert texts == {said}
    other = face.post("/v1/chat/completions", chat(most=8, seed=5)).json()["choices"][0]["message"]["content"]
    assert other not in texts


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_as_long_as_was_asked_for(face: Emulator, stream: bool) -> None:
    """With ignore_eos to the token; its usage says so and why it ended."""
    body = chat(most=23, ignore_eos=True, stream=stream, stream_options={"include_usage": True} if stream else None)
    reply = face.post("/v1/chat/completions", body)
    last = frames(reply)[-1] if stream else reply.json()
    assert last["usage"]["completion_tokens"] == 23
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 23
    reasons = [choice["finish_reason"] for each in (frames(reply) if stream else [last]) for choice in each["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]


def test_answers_end_by_themselves_where_the_scenario_says_so(
    begin: Callable[..., Emulator], scenario: Callable[..., str]
) -> None:
    """Its last token has no text and counts; ignore_eos and min_tokens hold it off."""
    for name in FACES:
        server = begin(name, "--scenario", scenario(answers={"eos_after": 5}))
        body = chat(most=20, stream=True, stream_options={"include_usage": True})

        def made(**more: Any) -> tuple[int, int, str]:
            each = frames(server.post("/v1/chat/completions", {**body, **more}))  # noqa: B023
            choices = [choice for frame in each for choice in frame["choices"]]
            words = sum(bool(choice["delta"].get("content")) for choice in choices)
            (reason,) = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
            return each[-1]["usage"]["completion_tokens"], words, reason

        assert made() == (5, 4, "stop")
        assert made(ignore_eos=True) == (20, 20, "length")
        # llama.cpp takes min_tokens and does nothing with it.
        assert made(min_tokens=9) == ((5, 4, "stop") if name == "llamacpp" else (10, 9, "stop"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_an_answer_and_is_not_in_it(face: Emulator, stream: bool) -> None:
    """Cut where it begins, in the middle of a token too."""
    whole = face.post("/v1/chat/completions", chat(most=12, temperature=0)).json()["choices"][0]["message"]["content"]
    words = whole.split(" ")
    stop = f"{words[4][-1]} {words[5][:1]}"
    reply = face.post("/v1/chat/completions", chat(most=12, temperature=0, stop=[stop], stream=stream))
    if stream:
        choices = [choice for each in frames(reply) for choice in each["choices"]]
        said, reason = "".join(choice["delta"].get("content") or "" for choice in choices), choices[-1]["finish_reason"]
    else:
        choice = reply.json()["choices"][0]
        said, reason = choice["message"]["content"], choice["finish_reason"]
    assert (said, reason) == (whole[: whole.index(stop)], "stop")


def test_log_probabilities_come_with_a_chat(face: Emulator) -> None:
    """One entry a token, with the likeliest where they are asked for."""
    reply = face.post("/v1/chat/completions", chat(most=3, logprobs=True, top_logprobs=2)).json()
    content = reply["choices"][0]["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in content] == [2, 2, 2]
    assert "".join(entry["token"] for entry in content) == reply["choices"][0]["message"]["content"]


def test_bodies_that_cannot_be_answered_are_refused(face: Emulator) -> None:
    """400 each, and the server goes on."""
    for body in (b"{", b"[]", {"messages": "hi"}, chat(most="many"), chat(n=2), {"messages": [{"role": 1}]}):
        assert face.post("/v1/chat/completions", body).status == 400, body
    for body in ({}, {"prompt": {}}, {"prompt": ["a", "b"]}, {"prompt": "a", "stop": [1]}):
        assert face.post("/v1/completions", body).status == 400, body
    assert face.post("/v1/completions", {"prompt": [[5, 6, 7]], "max_tokens": 1}).json()["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("name", FACES)
def test_a_client_that_leaves_gives_its_place_back(name: str, begin: Callable[..., Emulator]) -> None:
    """A stream that nobody reads is over before its time."""
    server = begin(name, speed="1")
    with server.open() as wire:
        wire.send("POST", "/v1/chat/completions", chat(most=1500, ignore_eos=True, stream=True))
        wire.until(b"data: ")
        until(lambda: samples(server)[RUNNING[name]] == 1)
    until(lambda: samples(server)[RUNNING[name]] == 0)
    assert server.post("/v1/chat/completions", chat()).status == 200


KEYS = {
    "vllm": (("--api-key", "secret"), ["/health", "/version", "/metrics", "/tokenize"]),
    "sglang": (("--api-key", "secret"), ["/health", "/ready", "/metrics"]),
    "llamacpp": (("--api-key", "secret"), ["/health", "/v1/health"]),
}


@pytest.mark.parametrize("name", FACES)
def test_a_key_guards_what_the_engine_guards(name: str, begin: Callable[..., Emulator]) -> None:
    """Some pages stay open; the key is in no line of the log."""
    arguments, open_paths = KEYS[name]
    server = begin(name, *arguments)
    for path in open_paths:
        method = "POST" if path == "/tokenize" else "GET"
        assert server.ask(method, path, {"prompt": "a"} if method == "POST" else None).status == 200, path
    assert server.ask("GET", "/v1/models").status == 401
    assert server.post("/v1/chat/completions", chat()).status == 401
    assert server.ask("GET", "/v1/models", authorization="Bearer secret").status == 200
    assert "secret" not in "\n".join(server.lines) + server.stderr


@pytest.mark.parametrize("name", FACES)
def test_faults_strike_in_the_engines_own_form(
    name: str, begin: Callable[..., Emulator], scenario: Callable[..., str]
) -> None:
    """A forward that fails is a 500, a stream's error is a frame, and the server lives on."""
    faults = [{"kind": "error", "after_requests": 0, "every": 2}, {"kind": "stream_error", "after_events": 2}]
    server = begin(name, "--scenario", scenario(faults=faults))
    assert server.post("/v1/chat/completions", chat(most=1)).status == 200
    assert server.post("/v1/chat/completions", chat(most=1)).status == 500
    lines = server.post("/v1/chat/completions", chat(most=1, stream=True)).events
    assert "error" in json.loads(lines[2].removeprefix("data: "))
    assert server.ask("GET", "/v1/models").status == 200


@pytest.mark.parametrize("name", FACES)
def test_the_truth_is_written_for_whoever_grades(name: str, tmp_path: Path) -> None:
    """What requests can really get at once, and the world that it follows from."""
    path = tmp_path / "truth.json"
    server = start(name, "--truth", str(path))
    server.stop()
    truth = json.loads(path.read_text())
    assert (truth["engine"], truth["gpu"], truth["starts"]) == (name, "L4", True)
    assert truth["usable_tokens"] == truth["outcome"]["usable_tokens"] > 8000


def test_prompts_in_flight_share_steps(face: Emulator) -> None:
    """Sixteen answers at once are all right, each with its own length."""
    replies = together(16, lambda each: face.post("/v1/completions", {"prompt": f"p{each}", "max_tokens": 10 + each}))
    assert [reply.json()["usage"]["completion_tokens"] for reply in replies] == list(range(10, 26))


def test_openais_client_reads_every_face(face: Emulator) -> None:
    """Models, chats, completions and streams with usage, and its typed errors."""
    with openai.OpenAI(base_url=f"{face.url}/v1", api_key="-", max_retries=0) as client:
        name = client.models.list().data[0].id
        answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
        assert answer.usage is not None
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (4, "length")
        chunks = list(
            client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=4,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert said == answer.choices[0].message.content
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        completion = client.completions.create(model=name, prompt="a b", max_tokens=3)
        assert completion.choices[0].finish_reason == "length"
        streamed = client.completions.create(model=name, prompt="a b", max_tokens=3, stream=True)
        texts = [chunk.choices[0].text for chunk in streamed]
        assert "".join(texts) == completion.choices[0].text
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model=name, prompt="the " * 3000, max_tokens=3)


@pytest.mark.parametrize(
    ("name", "begun", "ready_line"),
    [
        ("vllm", "Initializing a V1 LLM engine", "startup complete"),
        ("sglang", "server_args=", "ready to roll"),
        ("llamacpp", "loading model", "model loaded"),
    ],
)
def test_a_start_takes_the_time_that_it_is_given(
    name: str, begun: str, ready_line: str, launch: Callable[..., Emulator]
) -> None:
    """A signal in the middle of it ends it: vLLM and SGLang in order, llama.cpp by the signal."""
    running = launch(*ARGUMENTS[name], "--gpu", "L4", "--boot-seconds", "60s", face=name, wait=False)
    until(lambda: begun in "\n".join(running.lines) + running.stderr)
    assert running.stop() == (-15 if name == "llamacpp" else 0)
    assert ready_line not in "\n".join(running.lines) + running.stderr


@pytest.mark.parametrize("name", FACES)
def test_an_end_is_in_order(name: str) -> None:
    """SIGTERM while nothing runs: exit code 0."""
    server = start(name)
    ready(server)
    assert server.post("/v1/chat/completions", chat()).status == 200
    assert server.stop() == 0
