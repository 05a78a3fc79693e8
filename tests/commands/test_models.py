"""`harness models`: what is shown, what fits and why not, and what is added."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.catalog.gpus import find_gpu
from harness.catalog.models import Model, parse_catalogue
from harness.catalog.shapes import find_shape, kv_bytes_per_token, parameters
from harness.commands.models import add_model, add_text, check, check_models, check_text, list_models, list_text
from harness.engines import accepted, load_catalogue
from harness.errors import MissingError, UsageError
from harness.units import GIB
from tests.hub import COMMIT, CONFIG, ONE, running_hub

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models.yaml"


def model(entry: str) -> Model:
    return parse_catalogue(f"models: {{m: {{{entry}}}}}", engines=accepted()).models["m"]


def verdict(entry: str) -> tuple[bool, str, tuple[str, ...]]:
    one = model(entry)
    assert one.gpu is not None
    fit = check(one, find_gpu(one.gpu))
    return fit.fits, fit.reason, fit.remedies


def test_the_list_shows_every_entry() -> None:
    """As rows for a program and as a table for people."""
    rows = list_models(SHIPPED)
    assert [row.as_json()["name"] for row in rows] == list(load_catalogue(SHIPPED).models)
    assert json.dumps([row.as_json() for row in rows])
    lines = list_text(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert "4 x H100" in list_text(rows)


@pytest.mark.parametrize("name", list(load_catalogue(SHIPPED).models))
def test_every_shipped_entry_fits_its_gpu(name: str) -> None:
    """By the model's memory arithmetic, and by a coarse one of its own: weights and a chat within TGI's nine tenths."""
    (fit,) = check_models([name], catalogue=SHIPPED)
    assert fit.fits, fit.reason
    entry = load_catalogue(SHIPPED).models[name]
    shape = find_shape(entry.repo)
    assert shape is not None
    assert entry.context_length == shape.context
    bytes_per_weight = 0.55 if entry.quantize == "awq" else 2
    packed = parameters(shape) - 2 * shape.vocab * shape.hidden
    weights = packed * bytes_per_weight + 2 * 2 * shape.vocab * shape.hidden
    chat = 2048 * kv_bytes_per_token(shape)
    assert weights + chat + 1.5 * GIB * entry.gpus < 0.9 * fit.gpu.visible_bytes * entry.gpus


@pytest.mark.parametrize(
    ("entry", "reason", "remedies"),
    [
        # 131 GiB of weights on 22.
        (
            "repo: meta-llama/Llama-3.3-70B-Instruct, gpu: L4, dtype: bfloat16",
            "on L4 (22.0 GiB) loading the weights lacks 1",
            ("gpus: 8", "gpu: H200"),
        ),
        # Turing has no bfloat16, and 15 GiB of weights would not fit in 16 bits either.
        (
            "repo: meta-llama/Llama-3.1-8B-Instruct, gpu: T4, dtype: bfloat16",
            "T4 has no bfloat16, which came with compute capability 8.0; set dtype: float16",
            ("quantize: bitsandbytes-nf4", "gpu: L4"),
        ),
        ("repo: Qwen/Qwen2.5-0.5B, gpu: T4, dtype: bfloat16", "T4 has no bfloat16", ("dtype: float16",)),
        ("repo: Qwen/Qwen2.5-7B, gpu: T4, quantize: fp8", "T4 is too old for quantize: fp8", ("gpu: ",)),
        # Shards must divide the heads.
        (
            "repo: meta-llama/Llama-3.1-8B, gpu: L4, gpus: 3",
            "32 attention heads do not divide by 3 shards",
            ("gpus: 1",),
        ),
        # Limits larger than the memory allows.
        (
            "repo: meta-llama/Llama-3.1-8B, gpu: L4, limits: {max_batch_prefill_tokens: 30000}",
            "on L4 (22.0 GiB) the warm-up lacks",
            ("without its limits", "quantize: fp8", "gpus: 2"),
        ),
        (
            "repo: google/gemma-3-4b-it, gpu: L4, "
            "limits: {max_input_tokens: 9000, max_total_tokens: 9999, max_batch_prefill_tokens: 4096}",
            "max_batch_prefill_tokens 4,096 is below max_input_tokens 9,000, and this model's prompts are not read in",
            ("without its limits",),
        ),
        # A head size that flashinfer does not know gives flashdecoding, which has no fp8 cache.
        (
            "repo: microsoft/Phi-3-mini-4k-instruct, gpu: L4, kv_cache_dtype: fp8",
            "its attention is flashdecoding, for which there is no KV cache of fp8_e4m3fn",
            ("without kv_cache_dtype",),
        ),
        ("repo: Qwen/Qwen2.5-7B, gpu: L4, gpus: 2, quantize: exl2", "quantize: exl2 works on one GPU only", ()),
    ],
)
def test_what_does_not_fit_says_why_and_what_would(entry: str, reason: str, remedies: tuple[str, ...]) -> None:
    """The reason with its numbers; the nearest settings that fit, by the same arithmetic."""
    fits, found, offered = verdict(entry)
    assert not fits
    assert found.startswith(reason)
    assert all(any(each.startswith(remedy) for each in offered) for remedy in remedies)
    assert len(offered) <= 3


@pytest.mark.parametrize(
    "entry",
    [
        "repo: meta-llama/Llama-3.3-70B-Instruct, gpu: L4, dtype: bfloat16",
        "repo: meta-llama/Llama-3.1-8B-Instruct, gpu: T4, dtype: bfloat16",
        "repo: google/gemma-2-27b-it, gpu: L4, gpus: 2",
    ],
)
def test_each_remedy_fits_when_it_is_taken(entry: str) -> None:
    """Written into the entry as it stands, it makes the entry fit."""
    remedies = verdict(entry)[2]
    assert remedies
    for remedy in remedies:
        changes = dict(pair.split(": ") for pair in remedy.split(", "))
        kept = [pair for pair in entry.split(", ") if pair.partition(":")[0] not in changes]
        if "quantize" in changes:
            kept = [pair for pair in kept if not pair.startswith("dtype")]
        fits, reason, _ = verdict(", ".join([*kept, remedy]))
        assert fits, (remedy, reason)


@pytest.mark.parametrize(
    ("entry", "fits", "reason", "remedies"),
    [
        # Only the model's whole context does not fit, which vLLM asks for unless it is told otherwise.
        (
            "repo: meta-llama/Llama-3.1-8B-Instruct, gpu: L4, engine: {name: vllm}",
            False,
            "on L4 (22.0 GiB) the KV cache lacks",
            ("limits: {max_total_tokens: 32768}", "gpus: 2"),
        ),
        (
            "repo: meta-llama/Llama-3.1-8B-Instruct, gpu: L4, engine: {name: vllm}, limits: {max_total_tokens: 32768}",
            True,
            "on L4 beside 15.0 GiB of weights: a KV cache of",
            (),
        ),
        (
            "repo: Qwen/Qwen2.5-7B, gpu: T4, engine: {name: vllm}, dtype: bfloat16",
            False,
            "T4 has no bfloat16",
            ("quantize: fp8",),
        ),
        (
            "repo: Qwen/Qwen2.5-7B, gpu: L4, engine: {name: vllm}, limits: {max_input_tokens: 9}",
            False,
            "vLLM has no limit such as max_input_tokens",
            (),
        ),
        ("repo: Qwen/Qwen2.5-7B, gpu: L4, engine: {name: vllm, variant: cpu}", None, "how much memory vLLM takes", ()),
        (
            "repo: Qwen/Qwen2.5-7B-Instruct-GGUF, file: q-Q8_0.gguf, gpu: T4, engine: {name: llamacpp}",
            True,
            "on T4 beside",
            (),
        ),
    ],
)
def test_each_engine_is_judged_by_its_own_law(
    entry: str, fits: bool | None, reason: str, remedies: tuple[str, ...]
) -> None:
    """What TGI's arithmetic would say counts for TGI alone; an estimate says that it is one."""
    one = model(entry)
    assert one.gpu is not None
    fit = check(one, find_gpu(one.gpu))
    assert fit.fits is fits
    assert fit.reason.startswith(reason)
    assert all(any(each.startswith(remedy) for each in fit.remedies) for remedy in remedies)
    if fit.outcome is not None:
        assert "an estimate" in check_text([fit])
        assert fit.as_json()["estimate"]


def test_share_of_the_limits_counts_as_the_variable_does() -> None:
    """`limits.cuda_memory_fraction` is heeded as CUDA_MEMORY_FRACTION in `env` is."""
    written, by_name = (
        check(model(f"repo: Qwen/Qwen2.5-7B, gpu: L4, {text}"), find_gpu("L4")).as_json()["max_batch_total_tokens"]
        for text in ("env: {CUDA_MEMORY_FRACTION: '0.9'}", "limits: {cuda_memory_fraction: 0.9}")
    )
    assert written == by_name


def test_the_variables_of_an_entry_count() -> None:
    """Less of the card, or a smaller margin, changes what is left."""
    sizes = [
        check(model(f"repo: Qwen/Qwen2.5-7B, gpu: L4, env: {{{env}}}"), find_gpu("L4")).as_json()[
            "max_batch_total_tokens"
        ]
        for env in ("CUDA_MEMORY_FRACTION: 0.9", "X: 1", "TGI_WIGGLE_ROOM: 0.95")
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_known_size_counts_where_it_is_larger_than_reckoned() -> None:
    """What the headers of the files say is truer than arithmetic."""
    one = model("repo: Qwen/Qwen2.5-7B, gpu: L4")
    more = dataclasses.replace(one, weight_bytes=21 * GIB)
    card = find_gpu("L4")
    assert check(one, card).fits
    assert not check(more, card).fits


def test_the_sum_is_shown_for_one_model_and_for_each_that_does_not_fit() -> None:
    """The parts add up to the card's memory, to rounding."""
    (fit,) = check_models(["qwen2.5-7b"], catalogue=SHIPPED)
    text = check_text([fit])
    assert text.startswith("fits          qwen2.5-7b: on L4 beside 14.2 GiB of weights: a KV cache of ")
    assert "KV cache" in text.splitlines()[-3]
    fields = fit.as_json()
    assert sum(fields["memory_bytes"].values()) == fields["gpu_memory_bytes"]
    assert json.dumps(fields)
    assert len(check_text(check_models([], catalogue=SHIPPED)).splitlines()) == len(load_catalogue(SHIPPED).models)


def test_a_gpu_named_on_the_command_line_is_checked_instead() -> None:
    """`--gpu` overrides the entry's."""
    (fit,) = check_models(["qwen2.5-14b"], gpu="T4", catalogue=SHIPPED)
    assert (fit.gpu.name, fit.fits) == ("T4", False)


def test_an_entry_without_a_gpu_takes_the_one_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, `--gpu` is asked for."""
    path = tmp_path / "m.yaml"
    path.write_text("models: {m: {repo: Qwen/Qwen2.5-0.5B}}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"names no GPU, and there is none here\. Name one with --gpu"):
        check_models(["m"], catalogue=path)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, NVIDIA L4, 23034, 22000, 550.54.15'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert check_models(["m"], catalogue=path)[0].gpu.name == "L4"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hub that is asked instead of the real one; gives an empty working directory."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with running_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield folder


def test_a_model_of_the_hub_is_added_with_revision_sizes_and_shape(hub: Path) -> None:
    """What harness does not know of it is written into the entry, so that everything works without the Hub later."""
    added = add_model("org/two", gpu="nvidia l4")
    assert (hub / "models.yaml").read_text() == (
        "models:\n"
        "  two:\n"
        "    repo: org/two\n"
        f'    revision: "{COMMIT}"\n'
        "    gpu: L4\n"
        "    dtype: bfloat16\n"
        "    context_length: 2048\n"
        "    weight_bytes: 200\n"
        "    shape: {model_type: llama, layers: 3, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, intermediate: 128, "
        "vocab: 1000, tied: false, context: 2048}\n"
    )
    assert added.fit is not None
    assert added.fit.fits
    assert load_catalogue().models["two"] == added.model
    assert json.dumps(added.as_json())
    assert "200 B of weights by safetensors headers" in add_text(added)
    assert check_models(["two"])[0].fits


def test_a_quantised_model_and_a_chosen_name(hub: Path) -> None:
    """The checkpoint's own method; behind the entries that are there."""
    add_model("org/one", name="first")
    added = add_model("org/awq", name="second")
    assert (added.model.quantize, added.model.dtype, added.model.gpu, added.fit) == ("awq", None, None, None)
    assert list(load_catalogue().models) == ["first", "second"]


def test_a_directory_is_added_like_a_model_of_the_hub(hub: Path) -> None:
    """Without a revision."""
    folder = hub / "My Model-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(ONE)
    added = add_model("./My Model-Instruct")
    assert (added.model.name, added.model.repo, added.model.revision) == ("my-model", "./My Model-Instruct", None)


def test_what_cannot_be_added_leaves_no_file(hub: Path) -> None:
    """Gated or unknown, exit 3 or 2."""
    with pytest.raises(MissingError, match="is gated"):
        add_model("org/gated")
    with pytest.raises(UsageError, match="is not on the Hub"):
        add_model("org/none")
    assert not (hub / "models.yaml").exists()


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b-chat"),
        ("/data/weights/", "weights"),
    ],
)
def test_a_name_is_made_of_the_id(repo: str, name: str) -> None:
    """What every instruction-tuned model says of itself is left out."""
    from harness.commands.models import _name_for

    assert _name_for(repo) == name
