"""The usual Python clients see what they see of TGI, and fail where they fail there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import huggingface_hub
import huggingface_hub.errors
import openai
import pytest
from text_generation import Client
from text_generation import errors as tg_errors

from tests.emulator.conftest import LIMITS, Emulator

# text-generation 0.7.0 still calls what pydantic 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

USER = [{"role": "user", "content": "hello"}]


@pytest.fixture
def native(server: Emulator) -> Client:
    return Client(server.url, timeout=10)


@pytest.fixture
def openai_client(server: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        yield client


@pytest.fixture
def hub(server: Emulator) -> huggingface_hub.InferenceClient:
    return huggingface_hub.InferenceClient(model=server.url, timeout=10)


def test_text_generation_reads_answers_and_streams(native: Client) -> None:
    """generate with its details, generate_stream token by token."""
    answer = native.generate("one two", max_new_tokens=3)
    assert answer.details.generated_tokens == 3
    assert answer.details.finish_reason == "length"
    tokens = list(native.generate_stream("one two", max_new_tokens=3))
    assert "".join(token.token.text for token in tokens) == tokens[-1].generated_text == answer.generated_text
    best = native.generate("one two", max_new_tokens=3, best_of=2, do_sample=True)
    assert best.details.best_of_sequences is not None


def test_text_generation_cannot_read_chat_streams_of_3_x(native: Client) -> None:
    """0.7.0 reads a plain chat, and fails on a streamed one by its own mistake, on TGI as here."""
    chat = native.chat(messages=USER, max_tokens=3)
    assert chat.choices[0].message.content
    with pytest.raises(AttributeError, match="has no attribute 'status'"):
        list(native.chat(messages=USER, max_tokens=3, stream=True))


def test_text_generation_raises_its_typed_errors(server: Emulator, launch: Callable[..., Emulator]) -> None:
    """Refused by validation, and overloaded."""
    with pytest.raises(tg_errors.ValidationError, match="`temperature` must be strictly positive"):
        Client(server.url).generate("a", max_new_tokens=2, temperature=1e-46)
    full = launch("--model-id", "Qwen/Qwen2.5-0.5B", "--gpu", "L4", *LIMITS, "--max-concurrent-requests", "0")
    with pytest.raises(tg_errors.OverloadedError, match="Model is overloaded"):
        Client(full.url).generate("a", max_new_tokens=2)


def test_openai_reads_chats_completions_and_models(openai_client: openai.OpenAI) -> None:
    """Plain and streamed, usage asked for, log probabilities."""
    chat = openai_client.chat.completions.create(model="tgi", messages=USER, max_tokens=4)
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 4
    stream = openai_client.chat.completions.create(
        model="tgi", messages=USER, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len(chunks) == 5
    assert chunks[-1].usage is not None
    completion = openai_client.completions.create(model="tgi", prompt="a b", max_tokens=3)
    assert completion.choices[0].finish_reason == "length"
    assert openai_client.models.list().data[0].id == "Qwen/Qwen2.5-0.5B"


def test_openai_raises_its_typed_errors(openai_client: openai.OpenAI) -> None:
    """422 for a parameter that TGI refuses; an error inside a stream is an APIError."""
    for refused, text in (({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"), ({"stop": "x"}, "expected a sequence")):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            openai_client.chat.completions.create(model="tgi", messages=USER, max_tokens=4, **refused)
        assert text in caught.value.response.text
    with pytest.raises(openai.APIError, match="`top_p` must be"):
        list(openai_client.chat.completions.create(model="tgi", messages=USER, stream=True, top_p=1.0))


def test_openai_reads_tool_calls(openai_client: openai.OpenAI) -> None:
    """A call with arguments as text."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}}}
    chat = openai_client.chat.completions.create(model="tgi", messages=USER, max_tokens=60, tools=[tool])
    calls = chat.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments) == ("f", '{"x":7}')


def test_the_hubs_client_reads_text_and_chats(hub: huggingface_hub.InferenceClient) -> None:
    """text_generation plain, detailed and streamed; chat_completion plain and streamed."""
    text = hub.text_generation("one two", max_new_tokens=3)
    detailed = hub.text_generation("one two", max_new_tokens=3, details=True)
    assert text.endswith(detailed.generated_text)
    assert "".join(hub.text_generation("one two", max_new_tokens=3, stream=True)) in text
    assert hub.chat_completion(USER, max_tokens=3).choices[0].message.content
    assert len(list(hub.chat_completion(USER, max_tokens=3, stream=True))) == 3


def test_the_hubs_client_raises_its_typed_errors(hub: huggingface_hub.InferenceClient) -> None:
    """Validation is an error of its own; a chat's is an HTTP error."""
    with pytest.raises(huggingface_hub.errors.ValidationError, match="`top_k` must be strictly positive"):
        hub.text_generation("a", max_new_tokens=2, top_k=-1)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match=r"`top_p` must be > 0\.0 and < 1\.0"):
        hub.chat_completion(USER, max_tokens=2, top_p=1.0)
