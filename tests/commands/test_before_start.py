"""What is said before a start on a real GPU, with an nvidia-smi that lists one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog import hub
from harness.commands.doctor import doctor
from harness.engines import load_catalogue
from harness.errors import MissingError, UsageError
from harness.serve.before_start import look_before_start
from harness.serve.serving import choose_runtime, has_gpu, resolve_model
from harness.serve.target import Target
from harness.sizing.known import known_shape
from harness.stack.machine import gpus_here, gpus_in_order, hub_token, token_file
from tests.hub import TOKEN, Hub, running_hub

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = load_catalogue(ROOT / "models.yaml").first()
REAL = Target(runtime="compose")
Smi = Callable[..., None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Make nvidia-smi list these GPUs: name, memory, free memory (MiB)."""

    def install(*gpus: tuple[str, int, int], driver: str = "550.90.07") -> None:
        rows = "\n".join(f"{i}, {name}, {total}, {free}, {driver}" for i, (name, total, free) in enumerate(gpus))
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\ncase "$1" in -L) echo "GPU 0: x";; *) cat <<END\n{rows}\nEND\n;; esac\n', encoding="utf-8"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return install


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not asked in these tests."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_gpus_are_read(smi: Smi) -> None:
    """Index, name, memory, free memory and driver of each."""
    smi(("NVIDIA L4", 23034, 22000), ("NVIDIA A100-SXM4-80GB", 81920, 81000))
    first, second = gpus_here()
    assert (first.index, first.name, first.memory_bytes, first.driver) == ("0", "NVIDIA L4", 23034 * 2**20, "550.90.07")
    assert second.free_bytes == 81000 * 2**20
    assert has_gpu()


def test_model_that_fits_is_quietly_started(smi: Smi) -> None:
    """Nothing to say about memory; that the Hub was not asked is said."""
    smi(("NVIDIA L4", 23034, 22500))
    said: list[str] = []
    assert look_before_start(SMALL, REAL, said.append) is None
    assert [text for text in said if "Hub" not in text and "HF_HUB_OFFLINE" not in text] == []


def test_weights_larger_than_the_gpu_end_it(smi: Smi) -> None:
    """Certain, and told with the sum before 140 GB are downloaded: exit code 3."""
    smi(("NVIDIA L4", 23034, 22500))
    large = replace(SMALL, name="large", repo="meta-llama/Llama-3.3-70B-Instruct", gpu="L4", gpus=1)
    said: list[str] = []
    with pytest.raises(MissingError, match=r"weights take .* GiB per GPU, L4 has") as refused:
        look_before_start(large, REAL, said.append)
    assert refused.value.exit_code == 3
    assert any("GPU memory" in text for text in said)


def test_gpu_in_use_is_told(smi: Smi) -> None:
    """TGI takes what is free, so its budget would be smaller than the card's."""
    smi(("NVIDIA L4", 23034, 9000))
    said: list[str] = []
    look_before_start(SMALL, REAL, said.append)
    assert any("something else uses it" in text for text in said)


def test_unknown_card_is_left_to_the_engine(smi: Smi) -> None:
    """No sheet, no verdict."""
    smi(("NVIDIA Fantasia 9000", 23034, 23000))
    said: list[str] = []
    look_before_start(SMALL, REAL, said.append)
    assert any("cannot say beforehand" in text for text in said)


def test_refused_token_ends_it(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gated model without an accepted token fails here and not after the image was pulled."""
    smi(("NVIDIA L4", 23034, 22500))

    def gated(repo: str, revision: str | None = None) -> str:
        raise MissingError("is gated, and this machine has no token that its licence was accepted for", where=repo)

    monkeypatch.setattr(hub, "resolve_revision", gated)
    for revision in (None, "main"):  # a pinned one is asked for too
        with pytest.raises(MissingError, match="gated"):
            look_before_start(replace(SMALL, revision=revision), REAL, lambda text: None)


def test_revision_is_pinned_where_the_entry_has_none(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Hub calls newest now is what every restart gets."""
    smi(("NVIDIA L4", 23034, 22500))
    monkeypatch.setattr(hub, "resolve_revision", lambda repo, revision: "abc123")
    assert look_before_start(replace(SMALL, revision=None), REAL, lambda text: None) == "abc123"
    assert look_before_start(replace(SMALL, revision="main"), REAL, lambda text: None) is None


def test_revision_that_the_hub_does_not_have_is_named_with_its_entry(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what finds the one that it has; nothing was pulled yet."""
    smi(("NVIDIA L4", 23034, 22500))
    with running_hub() as address:
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", address)
        entry = replace(SMALL, repo="org/one", shape=known_shape(SMALL), revision="v9")
        with pytest.raises(UsageError, match=f"models/{SMALL.name}: org/one@v9 has no such revision") as caught:
            look_before_start(entry, REAL, lambda text: None)
    assert "`harness models update` says which commit" in str(caught.value)


@pytest.mark.parametrize("target", [Target(runtime="embedded"), Target(runtime="compose", emulate=True)])
def test_emulator_is_not_judged(smi: Smi, target: Target) -> None:
    """It plays the card that it is told."""
    smi(("NVIDIA L4", 23034, 100))
    said: list[str] = []
    assert look_before_start(SMALL, target, said.append) is None
    assert said == []


UNSERVED = replace(SMALL, name="new", repo="openai/gpt-oss-20b", dtype=None)  # by TGI, which knows it not


@pytest.mark.parametrize("runtime", ["compose", "swarm"])
def test_what_the_release_does_not_serve_is_not_started(smi: Smi, runtime: str) -> None:
    """Before an image is pulled: exit code 2, one line, who can and how to try all the same."""
    smi(("NVIDIA L4", 23034, 22500))
    with pytest.raises(
        UsageError, match=r"new: by its registry TGI 3\.3\.7 does not serve gpt_oss; vLLM .* can\."
    ) as refused:
        look_before_start(UNSERVED, Target(runtime=runtime), lambda text: None)
    assert refused.value.exit_code == 2
    assert "--try-unsupported" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("target", [Target(runtime="compose", try_unsupported=True), Target(runtime="local")])
def test_who_knows_better_may_try(smi: Smi, target: Target) -> None:
    """By an option; and what is installed on this host may be another release than the entry says."""
    smi(("NVIDIA L4", 23034, 22500))
    said: list[str] = []
    look_before_start(UNSERVED, target, said.append)
    assert any("does not serve gpt_oss" in text and "tried all the same" in text for text in said)


def test_own_code_of_the_weights_is_not_judged(smi: Smi) -> None:
    """An engine that loads with Transformers may run it."""
    smi(("NVIDIA L4", 23034, 22500))
    look_before_start(replace(UNSERVED, trust_remote_code=True), REAL, lambda text: None)


def test_what_may_die_under_load_is_said_before_the_start(smi: Smi) -> None:
    """It is started all the same."""
    smi(("NVIDIA L4", 23034, 22500))
    said: list[str] = []
    look_before_start(replace(SMALL, name="it", repo="google/gemma-3-4b-it"), REAL, said.append)
    assert any(text.startswith("it: may die under load: its warm-up reads one tiny image") for text in said)


def test_the_emulator_is_not_started_for_what_it_cannot_play() -> None:
    """Its launcher would say that there is no such model."""
    unknown = replace(SMALL, name="new", repo="acme/unheard-of", shape=None)
    with pytest.raises(
        UsageError, match="new: the emulator cannot play acme/unheard-of, whose shape is not known here"
    ):
        look_before_start(unknown, Target(runtime="embedded"), lambda text: None)


def test_runtime_without_a_wish(smi: Smi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compose where GPU and Docker are; else the emulator, and it says so."""
    said: list[str] = []
    smi(("NVIDIA L4", 23034, 22500))
    docker = tmp_path / "bin" / "docker"
    docker.write_text("#!/bin/sh\n", encoding="utf-8")
    docker.chmod(0o755)
    assert choose_runtime(Target(), SMALL, said.append) == "compose"
    monkeypatch.setenv("PATH", "/nowhere")
    assert choose_runtime(Target(), SMALL, said.append) == "embedded"
    assert "simulated" in said[0]
    assert choose_runtime(Target(launcher="x"), SMALL) == "local"
    assert choose_runtime(Target(emulate=True), SMALL) == "compose"


def test_doctor_on_a_gpu_machine(smi: Smi) -> None:
    """GPU and driver by name; an old driver with what mends it."""
    smi(("NVIDIA L4", 23034, 22900), driver="470.57.02")
    found = {each.name: each for each in doctor()}
    assert (found["gpu"].verdict, "NVIDIA L4" in found["gpu"].found) == ("ok", True)
    assert (found["driver"].verdict, "470.57.02" in found["driver"].found) == ("fail", True)


MODELS = """
models:
  small: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, weight_bytes: 988097824}
  large:
    {repo: meta-llama/Llama-3.3-70B-Instruct, gpu: L4, port: %d, engine: {version: "2.0.4"}, env: {PAYLOAD_LIMIT: 9}}
  here: {repo: %s, gpu: L4}
"""


def test_doctor_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `up` would find out one after another: the entry, memory, port, room, the Hub."""
    with socket.create_server(("127.0.0.1", 0)) as taken, running_hub() as address:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", address)
        Hub.repos["meta-llama/Llama-3.3-70B-Instruct"] = "gated"
        path = tmp_path / "models.yaml"
        path.write_text(MODELS % (taken.getsockname()[1], tmp_path), encoding="utf-8")
        findings = {each.name: each for each in doctor(["small", "large", "here"], catalogue=path)}
    verdicts = {name: each.verdict for name, each in findings.items()}
    assert (verdicts["small: memory"], verdicts["large: memory"]) == ("ok", "fail")
    assert (verdicts["small: port"], verdicts["large: port"]) == ("ok", "fail")
    assert "PAYLOAD_LIMIT" in findings["large: entry"].found
    assert verdicts["here: weights"] == "ok"
    assert (verdicts["large: hub"], verdicts["small: hub"]) == ("fail", "fail")  # gated, and not on this Hub
    assert all(each.fix for each in findings.values() if each.verdict == "fail")


@pytest.mark.parametrize(("token", "verdict"), [(TOKEN, "ok"), ("hf_wrong", "fail"), ("hf_€", "fail")])
def test_token_is_shown_to_the_hub(token: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is there may have expired; a Hub that cannot be asked is no failure."""
    monkeypatch.setenv("HF_TOKEN", token)
    with running_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        (told,) = [each for each in doctor() if each.name == "hub token"]
    assert told.verdict == verdict
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    (alone,) = [each for each in doctor() if each.name == "hub token"]
    assert alone.verdict == "warn" or not token.isascii()
    assert token not in f"{told} {alone}"


def test_figures_are_of_the_card_that_is_here(smi: Smi, tmp_path: Path) -> None:
    """An entry that is meant for another card is served all the same, and says so; the emulator plays what is asked."""
    said: list[str] = []
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  m: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4}\n", encoding="utf-8")
    target = Target(model="m", catalogue=str(path))
    smi(("NVIDIA H100 80GB HBM3", 81559, 81000))
    assert resolve_model(replace(target, runtime="compose"), said.append).gpu == "H100"
    assert "L4" in said[0]
    for other in (replace(target, runtime="embedded"), replace(target, runtime="compose", emulate=True)):
        assert resolve_model(other, said.append).gpu == "L4"
    assert resolve_model(replace(target, runtime="compose", gpu="T4"), said.append).gpu == "T4"
    smi(("NVIDIA Unheard Of", 81559, 81000))
    assert resolve_model(replace(target, runtime="compose"), said.append).gpu == "L4"
    assert len(said) == 1


def test_memory_is_what_others_leave(smi: Smi) -> None:
    """A GPU that nobody uses comes first; on one in use only its free memory counts."""
    said: list[str] = []
    smi(("NVIDIA L4", 23034, 1500), ("NVIDIA L4", 23034, 22900))
    assert [gpu.index for gpu in gpus_in_order()] == ["1", "0"]
    look_before_start(SMALL, REAL, said.append)
    assert not any("GPU" in line for line in said)
    smi(("NVIDIA L4", 23034, 1500))
    look_before_start(SMALL, REAL, said.append)
    assert any("lacks" in line for line in said)


def test_token_is_found_and_written_for_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Environment first, else the Hub's own file; the copy is of mode 0600, and never shows itself."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    assert hub_token() is None
    assert token_file() is None
    (tmp_path / "token").write_text("hf_from_file\n", encoding="utf-8")
    found = hub_token()
    assert found is not None
    assert (found.reveal(), str(found)) == ("hf_from_file", "[REDACTED]")
    monkeypatch.setenv("HF_TOKEN", "hf_from_environment")
    path = token_file()
    assert path is not None
    assert Path(path).read_text(encoding="utf-8") == "hf_from_environment"
    assert Path(path).stat().st_mode & 0o777 == 0o600
