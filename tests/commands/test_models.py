"""`harness models`: what is shown, what fits and why not, and what is added."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.catalog.gpus import find_gpu, gpus
from harness.catalog.limits import Limits
from harness.catalog.models import Model, parse_catalogue
from harness.catalog.shapes import find_shape, kv_bytes_per_token, parameters
from harness.cli import run as main
from harness.commands.models import (
    EntryOverrides,
    add_model,
    add_text,
    check_models,
    list_models,
    list_text,
    update_models,
    update_text,
)
from harness.emulator.model import load_model
from harness.engines import accepted, load_catalogue
from harness.errors import MissingError, UsageError
from harness.probe.prior import expect
from harness.simulator.fit import Fits, weights_bytes
from harness.sizing.check import check, check_text
from harness.sizing.known import known_shape
from harness.units import GIB
from tests.hub import COMMIT, CONFIG, ONE, Hub, running_hub

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
def test_every_shipped_entry_can_be_served_as_it_stands(name: str) -> None:
    """By the memory law of its engine, and by a coarse sum of its own: weights and a chat within nine tenths. Its
    engine serves it, its SLO can hold, and its price has a source.
    """
    (fit,) = check_models([name], catalogue=SHIPPED)
    assert fit.good, fit
    assert fit.slo is None
    assert fit.support is not None
    assert fit.support.kind in ("native", "fallback")
    entry = load_catalogue(SHIPPED).models[name]
    shape = find_shape(entry.repo)
    assert shape is not None
    assert entry.context_length == shape.context
    assert entry.price_per_gpu_hour
    assert entry.price_source
    bytes_per_weight = 0.55 if entry.quantize == "awq" or shape.stored == "mxfp4" else 2
    packed = parameters(shape) - 2 * shape.vocab * shape.hidden
    weights = packed * bytes_per_weight + 2 * 2 * shape.vocab * shape.hidden
    chat = 2048 * kv_bytes_per_token(shape)
    assert weights + chat + 1.5 * GIB * entry.gpus < 0.9 * fit.gpu.visible_bytes * entry.gpus


def test_the_shipped_catalogue_is_of_today() -> None:
    """At least sixteen; half of them newer than mid-2025, as the text says; one for a T4, and a large one."""
    text = SHIPPED.read_text(encoding="utf-8")
    models = load_catalogue(SHIPPED).models
    recent = re.findall(r"(?m)^  [a-z0-9.-]+: +# (?:June|July|August|September|October|November|December) 2025;?", text)
    assert len(models) >= 16
    assert 2 * len(recent) >= len(models)
    assert any(model.gpu == "T4" for model in models.values())
    assert max(parameters(shape) for model in models.values() if (shape := find_shape(model.repo))) > 70e9


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            "repo: meta-llama/Llama-3.1-8B, gpu: L4, slo: {itl_p95: 60ms}",
            "itl_p95=60ms cannot hold: one chat alone gets a token every 63 ms on L4",
        ),
        ("repo: meta-llama/Llama-3.1-8B, gpu: L4, slo: {itl_p95: 80ms, ttft_p95: 1ms}", None),
        ("repo: meta-llama/Llama-3.1-8B, gpu: L4, gpus: 2, slo: {itl_p95: 60ms}", None),
        # Of 57 GiB one token reads the experts that it chose.
        ("repo: Qwen/Qwen3-30B-A3B, gpu: H100, dtype: bfloat16, slo: {tpot_p50: 6ms}", None),
        ("repo: Qwen/Qwen3-30B-A3B, gpu: H100, dtype: bfloat16, slo: {tpot_p50: 1ms}", "tpot_p50=1ms cannot hold"),
    ],
)
def test_an_slo_that_no_memory_is_fast_enough_for(entry: str, words: str | None) -> None:
    """It is said, with the sum; what may hold or not is left to a measurement."""
    one = model(entry)
    assert one.gpu is not None
    fit = check(one, find_gpu(one.gpu))
    assert (fit.slo or "").startswith(words or "")
    assert (fit.slo is None) == (words is None)
    assert words is None or words in check_text([fit])


def test_a_short_chat_of_a_hybrid_takes_its_whole_state() -> None:
    """Nemotron Nano: 64 MB of state against 33 MB of cache for 2,048 tokens."""
    one = model("repo: nvidia/NVIDIA-Nemotron-Nano-9B-v2, gpu: L40S, engine: {name: vllm}")
    fit = check(one, find_gpu("L40S"))
    shape = find_shape(one.repo)
    assert shape is not None
    assert isinstance(fit.outcome, Fits)
    each = 2 * shape.state_values + 2048 * kv_bytes_per_token(shape)
    cache = fit.as_json()["memory_bytes"]["KV cache"]
    assert fit.outcome.chats == pytest.approx(cache / each, rel=0.01)


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
        ("repo: Qwen/Qwen2.5-7B, gpu: L4, engine: {name: vllm, variant: cpu}", None, "the memory that vLLM takes", ()),
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
    lines = check_text(check_models([], catalogue=SHIPPED)).splitlines()
    assert len([line for line in lines if line.startswith("fits ")]) == len(load_catalogue(SHIPPED).models)


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


def publish(name: str, **changes: Any) -> str:
    """A repository of the Hub with the config of a published architecture and no weights; its id."""
    config = dict(PUBLISHED[name]["config"]) | changes
    Hub.repos[name] = {"config.json": json.dumps(config).encode()}
    return name


PUBLISHED = json.loads((ROOT / "tests/catalog/architectures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("repo", list(PUBLISHED))
def test_any_published_architecture_is_added_and_known_everywhere(repo: str, hub: Path) -> None:
    """No code is touched; the entry has all that check, prober and emulator need, without the Hub."""
    added = add_model(publish(repo), name="it")
    Hub.repos.clear()
    entry = load_catalogue().models["it"]
    shape = known_shape(entry)
    assert shape is not None
    assert parameters(dataclasses.replace(shape, vision_parameters=0)) == PUBLISHED[repo]["parameters"]
    assert added.support.kind in ("native", "fallback"), added.support
    fit = check(entry, find_gpu("H200"))
    assert fit.fits is not None
    assert expect(entry, (3, 3, 7)).context == shape.context
    assert load_model(entry.repo).shape == dataclasses.replace(shape, name=load_model(entry.repo).shape.name)


def test_the_engine_of_earlier_entries_is_not_that_of_the_next(hub: Path) -> None:
    """What a file's entries name is theirs; one that names none gets the file's default, or TGI."""
    for repo in ("Qwen/Qwen3.5-35B-A3B", "LiquidAI/LFM2-2.6B"):
        added = add_model(publish(repo), gpu="H100")
        assert (added.model.engine.name, added.support.kind) == ("vllm", "native")
    (hub / "models.yaml").write_text("defaults: {engine: {name: vllm}}\nmodels:\n  a:\n    repo: org/one\n")
    add_model("LiquidAI/LFM2-2.6B", gpu="H100")
    assert "engine" not in (hub / "models.yaml").read_text().partition("lfm2-2.6b:")[2]
    assert load_catalogue(hub / "models.yaml").models["lfm2-2.6b"].engine.name == "vllm"


def test_the_longest_context_of_a_model_with_windows_is_offered_and_fits(hub: Path) -> None:
    """Its windows keep as much of a short request as of a long one, so that no quotient gives it."""
    added = add_model(publish("google/gemma-4-31B-it"), name="it", gpu="H100")
    assert added.fit is not None
    offered = re.fullmatch(r"limits: \{max_total_tokens: (\d+)\}", added.fit.remedies[0])
    assert offered
    for tokens, fits in ((int(offered[1]), True), (int(offered[1]) + 2048, False)):
        entry = dataclasses.replace(added.model, limits=Limits(max_total_tokens=tokens))
        assert check(entry, find_gpu("H100")).fits is fits


def test_what_no_card_holds_is_said(hub: Path) -> None:
    """1.35 TiB of weights; an advice that is missing looks like a mistake."""
    added = add_model(publish("zai-org/GLM-5.2"), name="it", gpu="H100")
    assert "nothing of the GPU sheets would fit it, up to 8 cards" in add_text(added)


def test_one_answer_has_one_size(hub: Path) -> None:
    """gpt-oss-20b is 12.8 GiB in MXFP4, in the first line and in the sum; nobody advises to quantise it again."""
    added = add_model(publish("openai/gpt-oss-20b"), name="it", gpu="RTX4090", settings=EntryOverrides(gpu="T4"))
    text = add_text(added)
    assert added.model.engine.name == "vllm"
    assert "TGI 3.3.7 does not serve it: its entry says vllm" in text
    assert text.count("12.8 GiB") >= 2
    assert "39" not in text
    assert added.fit is not None
    assert not any("quantize" in remedy for remedy in added.fit.remedies)


def test_the_last_line_and_the_exit_code_say_the_same(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is written, since the card may change, and is called what it is."""
    repo = publish("Qwen/Qwen3.5-27B")
    assert main(["models", "add", repo, "--gpu", "L4", "--name", "it"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("It does not fit as it is written")
    assert main(["models", "check", "it"]) == 1
    assert "would fit: gpu: " in capsys.readouterr().out
    assert main(["models", "check", "it", "--gpu", "H100"]) == 0
    assert main(["models", "check", "it", "--gpu", "L4", "--gpus", "4"]) == 0
    assert main(["models", "check", "it", "--engine", "tgi", "--gpu", "H100"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "cannot be served by its engine: it"


def test_settings_of_the_command_line(hub: Path) -> None:
    """They stand in the entry that is added, and only for the answer in a check."""
    repo = publish("tencent/Hunyuan-7B-Instruct")
    wanted = EntryOverrides(gpu="L4", gpus=2, engine="vllm:0.30.0", quantize="fp8")
    added = add_model(repo, name="it", settings=wanted).model
    assert (added.gpu, added.gpus, added.quantize, added.dtype) == ("L4", 2, "fp8", None)
    assert (added.engine.name, added.engine.version) == ("vllm", "0.30.0")
    (plain,) = check_models(["it"], settings=EntryOverrides(quantize="none", gpus=1))
    (packed,) = check_models(["it"], settings=EntryOverrides(gpus=1))
    assert weights_bytes(plain.outcome) > 1.7 * weights_bytes(packed.outcome)
    for wrong, words in (
        (EntryOverrides(quantize="mxfp9"), "--quantize: expected one of"),
        (EntryOverrides(dtype="float8"), "--dtype: expected one of"),
        (EntryOverrides(engine="triton"), "unknown engine 'triton'"),
        (EntryOverrides(engine="vllm:new"), "no version of vLLM"),
    ):
        with pytest.raises(UsageError, match=words):
            check_models(["it"], settings=wrong)


def test_a_hub_id_that_is_no_entry_is_looked_up(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On every card in one table; the last line has the cheapest."""
    publish("LiquidAI/LFM2-2.6B")
    assert main(["models", "check", "LiquidAI/LFM2-2.6B", "--all-gpus", "--engine", "vllm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(gpus())
    assert lines[-1].endswith("the cheapest is RTX3090")
    assert main(["models", "check", "LiquidAI/LFM2-2.6B", "--all-gpus", "--gpu", "L4"]) == 2


def test_no_more_chats_than_are_let_in_and_none_longer_than_one_may_be(hub: Path) -> None:
    """A chat of 790 tokens and eleven of 2,048 cannot both be."""
    limits = "limits: {max_input_tokens: 512, max_total_tokens: 790, max_batch_size: 8, max_batch_prefill_tokens: 512}"
    reason = check(model(f"repo: Qwen/Qwen2.5-7B, gpu: L4, {limits}"), find_gpu("L4")).reason
    assert "one chat of up to 790 or 8 of 790 (its limits let no more in; there is room for" in reason


def test_what_is_not_reckoned_is_added_all_the_same(hub: Path) -> None:
    """Its memory is left open, not guessed."""
    config = {"model_type": "deepseek_v4", "architectures": ["DeepseekV4ForCausalLM"]}
    Hub.repos["org/v4"] = {"config.json": json.dumps(config).encode(), "model.safetensors": ONE}
    added = add_model("org/v4", gpu="H200")
    assert added.fit is not None
    assert added.fit.fits is None
    assert "model type 'deepseek_v4' is not known to harness" in add_text(added)
    assert (added.model.engine.name, added.support.kind) == ("vllm", "native")
    assert added.good


def test_entries_are_brought_up_to_date(hub: Path) -> None:
    """Revision, size and name as the Hub has them now; one without a revision, or with a branch, gets the commit."""
    path = hub / "models.yaml"
    path.write_text(f"models:\n  a:\n    repo: org/one  # mine\n    revision: '{'0' * 40}'\n  b: {{repo: org/two}}\n")
    found = update_models([])
    assert [each.changes for each in found] == [{"revision": ("0" * 40, COMMIT)}, {"revision": (None, COMMIT)}]
    assert f"b: revision none -> {COMMIT}" in update_text(found)
    assert "0000" in path.read_text()
    update_models(["a"], write=True)
    assert path.read_text() == (
        f'models:\n  a:\n    repo: org/one  # mine\n    revision: "{COMMIT}"\n  b: {{repo: org/two}}\n'
    )
    update_models(["b"], write=True)
    assert load_catalogue(path).models["b"].revision == COMMIT
    path.write_text("models: {c: {repo: org/one, revision: main, weight_bytes: 128}}\n")
    assert [each.changes for each in update_models([], write=True)] == [{"revision": ("main", COMMIT)}]
    assert [each.changes for each in update_models([])] == [{}]
    Hub.repos["org/one"] = 500
    assert "the Hub answered 500" in update_text(update_models(["c"]))


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
