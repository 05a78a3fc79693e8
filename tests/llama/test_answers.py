"""What llama.cpp's server answers: who it is, how it counts tokens, and what each event of a stream tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llama.conftest import Launch
from tests.llama.running import CHAT, LlamaServer, conversation


def test_who_answers_can_be_told(server: LlamaServer, llama_model: Path) -> None:
    """By the header of every answer, by the owner of the model, and by the keys of /props."""
    models = server.ask("GET", "/v1/models")
    assert models.headers["server"] == "llama.cpp"
    (entry,) = models.json()["data"]
    assert (entry["owned_by"], entry["id"]) == ("llamacpp", str(llama_model))
    assert (entry["meta"]["n_ctx"], entry["meta"]["n_ctx_train"]) == (2048, 8192)
    assert server.ask("GET", "/props").json()["model_path"] == str(llama_model)


def test_metrics_and_slots_are_501_where_they_are_off(launch: Launch) -> None:
    """/metrics must be asked for, /slots must be forbidden."""
    server = launch("--no-slots")
    assert [server.ask("GET", path).status for path in ("/metrics", "/slots")] == [501, 501]


def test_api_key_guards_all_but_health(launch: Launch, tmp_path: Path) -> None:
    """A wrong key is 401, also for /metrics and /v1/models."""
    (tmp_path / "keys").write_text("# who\nright\n")
    server = launch("--api-key-file", str(tmp_path / "keys"), "--metrics", "--alias", "tiny")
    paths = ("/health", "/metrics", "/v1/models", "/props", "/slots")
    for key, statuses in (("wrong", [200, 401, 401, 401, 401]), ("right", [200] * 5)):
        assert [server.ask("GET", path, authorization=f"Bearer {key}").status for path in paths] == statuses
    models = server.ask("GET", "/v1/models", authorization="Bearer right").json()
    assert models["data"][0]["id"] == "tiny"


def test_input_tokens_counts_a_chat_as_the_answer_does(server: LlamaServer) -> None:
    """/tokenize leaves out the beginning-of-text token unless asked; the chat's own route counts all of it."""
    prompt = server.ask("POST", "/apply-template", conversation(7)).json()["prompt"]
    counts = [
        len(server.ask("POST", "/tokenize", {"content": prompt, "add_special": special}).json()["tokens"])
        for special in (False, True)
    ]
    asked = server.ask("POST", f"{CHAT}/input_tokens", conversation(7)).json()["input_tokens"]
    used = server.chat(7, max_tokens=1).json()["usage"]["prompt_tokens"]
    assert (counts[0] + 1, counts[1], asked) == (used, used, used)


def test_each_event_of_a_stream_tells_its_token(server: LlamaServer) -> None:
    """With timings_per_token the first event with text is token 1 and each later one the next; usage agrees."""
    options = {"include_usage": True}
    answer = server.chat(
        10, max_tokens=300, ignore_eos=True, stream=True, timings_per_token=True, stream_options=options
    )
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.frames[-1] == "[DONE]"
    role, *texts, finish, usage = answer.events()
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert "timings" not in role
    assert [event["timings"]["predicted_n"] for event in texts] == list(range(1, 301))
    assert all(event["choices"][0]["delta"]["content"].strip() for event in texts)
    assert finish["choices"] == [{"finish_reason": "length", "index": 0, "delta": {}}]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == usage["timings"]["predicted_n"] == 300


def test_the_end_token_counts_though_it_has_no_event(server: LlamaServer) -> None:
    """An answer that ends by itself is one token longer than its events."""
    answer = server.chat(10, max_tokens=1000, stream=True, stream_options={"include_usage": True})
    assert answer.events()[-2]["choices"][0]["finish_reason"] == "stop"
    assert answer.events()[-1]["usage"]["completion_tokens"] == len(answer.words()) + 1


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (7, 7), (600, 600)])
def test_ignore_eos_gives_exactly_as_many_tokens_as_asked_for(server: LlamaServer, asked: int, given: int) -> None:
    """Past the end of the turn too; none at all cannot be had."""
    answer = server.chat(10, max_tokens=asked, ignore_eos=True).json()
    assert answer["usage"]["completion_tokens"] == given
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["message"]["content"].split()) == given


def test_cache_prompt_off_computes_the_whole_prompt(server: LlamaServer) -> None:
    """A prompt asked again is taken from the cache but for one token, unless the request says no."""
    server.chat(200, max_tokens=1)
    again, cold = server.chat(200, max_tokens=1).json(), server.chat(200, max_tokens=1, cache_prompt=False).json()
    prompt = again["usage"]["prompt_tokens"]
    for answer, cached in ((again, prompt - 1), (cold, 0)):
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == cached
        assert (answer["timings"]["cache_n"], answer["timings"]["prompt_n"]) == (cached, prompt - cached)
