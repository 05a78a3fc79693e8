"""One address for two models on a real Docker Engine, asked by OpenAI's own client."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import openai
import pytest

from harness.stack import sidecar_image
from harness.stack.gateway import Route, gateway
from tests.docker.conftest import Harness, ours

pytestmark = [pytest.mark.docker, pytest.mark.containers, pytest.mark.timeout(900)]
STACK = ("--runtime", "compose", "--emulate")


@pytest.fixture(scope="module", autouse=True)
def _gateway_image() -> None:
    """Pulled, or built from the PyPI package where no registry can be reached: minutes, the first time."""
    wanted = gateway([Route("one", "one")])
    sidecar_image.ensure(wanted.image, wanted.engine, print)


@pytest.fixture
def catalogue(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "models:\n"
        "  one: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, limits: {max_input_tokens: 1000, max_total_tokens: 1200}}\n"
        "  two.5: {repo: Qwen/Qwen2.5-1.5B-Instruct, gpu: T4}\n",
        encoding="utf-8",
    )


def started(harness: Harness, *models: str) -> tuple[dict[str, str], openai.OpenAI]:
    """Endpoints by name, and a client of the gateway."""
    running = json.loads(harness("up", *models, *STACK, "--gateway", "--json").stdout)
    endpoints = {each["name"]: each["endpoint"] for each in running}
    return endpoints, openai.OpenAI(base_url=f"{endpoints['gateway']}/v1", api_key="any", max_retries=0)


def answered(endpoint: str) -> int:
    """Requests that this container itself has answered, by its own count."""
    with urllib.request.urlopen(f"{endpoint}/metrics") as page:
        lines = [line.split() for line in page.read().decode().splitlines() if line.startswith("tgi_request_success ")]
    return int(lines[0][1]) if lines else 0


@pytest.mark.usefixtures("catalogue")
def test_each_name_is_answered_by_its_own_container(harness: Harness) -> None:
    """Chat, stream and completion go where the `model` field says; another name is refused and reaches nobody."""
    endpoints, client = started(harness, "one", "two.5")
    services = {"one": endpoints["one"], "two.5": endpoints["two.5"]}
    assert sorted(model.id for model in client.models.list()) == ["one", "two.5"]
    for name, endpoint in services.items():
        others = [each for each in services.values() if each != endpoint]
        before, elsewhere = answered(endpoint), [answered(each) for each in others]
        message = [{"role": "user", "content": "Hello"}]
        chat = client.chat.completions.create(model=name, messages=message, max_tokens=7)  # type: ignore[arg-type]
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 7
        stream = client.chat.completions.create(model=name, messages=message, max_tokens=7, stream=True)  # type: ignore[call-overload]
        pieces = [event.choices[0].delta.content for event in stream if event.choices]
        assert len([piece for piece in pieces if piece]) == 7, "every token comes by itself"
        assert client.completions.create(model=name, prompt="Hello", max_tokens=3).choices[0].text
        assert answered(endpoint) == before + 3
        assert [answered(each) for each in others] == elsewhere
    counts = [answered(each) for each in services.values()]
    with pytest.raises(openai.BadRequestError, match="Invalid model name"):
        client.chat.completions.create(model="three", messages=[{"role": "user", "content": "Hello"}])
    assert [answered(each) for each in services.values()] == counts
    harness("down")
    assert ours() == []


@pytest.mark.usefixtures("catalogue")
def test_refusal_of_the_engine_reaches_the_client(harness: Harness) -> None:
    """TGI's own words, asked once, also for a stream, which TGI itself answers with 200."""
    _, client = started(harness, "one")
    long = [{"role": "user", "content": "Hello " * 3000}]
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError, match="must be <= 1200") as refusal:
            list(client.chat.completions.create(model="one", messages=long, stream=stream))  # type: ignore[call-overload]
        assert refusal.value.status_code in (400, 422)
    harness("down")


@pytest.mark.usefixtures("catalogue")
def test_life_of_a_gateway(harness: Harness) -> None:
    """A second `up` leaves it alone, a new model renews it, it is shown, and goes with its last model."""
    started(harness, "one")
    (before,) = containers("gateway")
    again = harness("up", "one", *STACK, "--gateway")
    assert "gateway: up already" in again.stderr
    assert containers("gateway") == [before]
    _, client = started(harness, "two.5")
    assert sorted(model.id for model in client.models.list()) == ["one", "two.5"]
    shown = {each["name"]: each for each in json.loads(harness("status", "--json").stdout)}
    assert (shown["gateway"]["phase"], shown["gateway"]["engine"]) == ("ready", "litellm")
    assert "/v1/models" in harness("logs", "gateway").stdout
    described = json.loads(subprocess.run(["docker", "inspect", *containers("gateway")], capture_output=True).stdout)[0]
    assert described["HostConfig"]["ReadonlyRootfs"] is True
    assert described["HostConfig"]["PortBindings"]["4000/tcp"][0]["HostIp"] == "127.0.0.1"
    harness("down", "one")
    assert len(containers("gateway")) == 1
    harness("down", "two.5")
    assert ours() == []


def containers(service: str) -> list[str]:
    found = []
    for kind, name in ours():
        label = '{{index .Config.Labels "com.docker.compose.service"}}'
        if kind == "container":
            told = subprocess.run(["docker", "inspect", "-f", label, name], capture_output=True, text=True).stdout
            found += [name] if told.strip() == service else []
    return found
