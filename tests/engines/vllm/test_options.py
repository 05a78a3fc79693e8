"""vLLM's command line, release by release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named, stored_as
from harness.engines.arguments import is_flag
from harness.engines.base import Place
from harness.engines.vllm.options import ACCEPTS, FLAGS, NEWEST
from harness.errors import UsageError

VLLM = engine_named("vllm")
HERE = Place("127.0.0.1", 8001)
MODEL = Model("qwen", "Qwen/Qwen2.5-7B-Instruct", engine=EngineChoice("vllm", "0.32.0"))


def line(model: Model, place: Place = HERE, revision: str | None = None, **engine: object) -> list[str]:
    entry = replace(model, engine=replace(model.engine, **engine))  # type: ignore[arg-type]
    return list(VLLM.invocation(entry, VLLM.version(entry.engine.version), place, revision=revision).args)


def test_whole_command_line() -> None:
    """The model first, then where it listens and its names, then what the entry says, then its own arguments."""
    model = replace(
        MODEL,
        gpus=2,
        dtype="bfloat16",
        quantize="fp8",
        kv_cache_dtype="fp8_e5m2",
        trust_remote_code=True,
        limits=Limits(
            max_total_tokens=8192,
            max_batch_prefill_tokens=4096,
            max_batch_size=64,
            max_concurrent_requests=200,
            cuda_memory_fraction=0.9,
        ),
    )
    assert line(model, revision="abc", args=("--enforce-eager",)) == [
        "Qwen/Qwen2.5-7B-Instruct",
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--served-model-name", "qwen", "Qwen/Qwen2.5-7B-Instruct", "--shutdown-timeout", "90"),
        *("--revision", "abc", "--tensor-parallel-size", "2", "--dtype", "bfloat16"),
        *("--quantization", "fp8", "--kv-cache-dtype", "fp8_e5m2", "--trust-remote-code"),
        *("--max-model-len", "8192", "--max-num-batched-tokens", "4096", "--max-num-queued-reqs", "200"),
        *("--max-num-seqs", "64", "--gpu-memory-utilization", "0.9"),
        "--enforce-eager",
    ]


def test_bare_entry_leaves_the_rest_to_vllm() -> None:
    """Nothing is set that the entry does not say."""
    assert line(MODEL)[1:] == [
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--served-model-name", "qwen", "Qwen/Qwen2.5-7B-Instruct", "--shutdown-timeout", "90"),
    ]


@pytest.mark.parametrize("version", [f"{a}.{b}.{c}" for a, b, c in FLAGS.releases])
def test_every_flag_is_one_of_the_release(version: str) -> None:
    """Whatever an entry says, no release is given a flag that its parser does not have."""
    model = replace(
        MODEL,
        gpus=2,
        dtype="float16",
        quantize="fp8",
        kv_cache_dtype="fp8",
        trust_remote_code=True,
        limits=Limits(max_total_tokens=512, max_batch_prefill_tokens=512, max_batch_size=4, cuda_memory_fraction=0.5),
    )
    release = VLLM.version(version)
    for word in line(model, version=version):
        if is_flag(word):
            assert FLAGS.flag_of(word) == word
            assert FLAGS.known_in(word, release)


def test_older_release_drains_nothing() -> None:
    """`--shutdown-timeout` is given only where it is known, and an entry's own goes before ours."""
    assert "--shutdown-timeout" not in line(MODEL, version="0.12.0")
    own = line(MODEL, args=("--shutdown-timeout", "5"))
    assert own.count("--shutdown-timeout") == 1
    assert own[-2:] == ["--shutdown-timeout", "5"]


def test_drain_is_what_was_asked_for() -> None:
    """The grace period of a container follows the argument that vLLM itself heeds."""
    model = replace(MODEL, engine=replace(MODEL.engine, args=("--shutdown_timeout=300",)))
    assert VLLM.drain_seconds(VLLM.invocation(model, NEWEST, HERE)) == 300


def test_local_model_has_the_entrys_name() -> None:
    """A directory is served from where the engine sees it, without a revision, under the entry's name alone."""
    model = replace(MODEL, repo="/srv/models/qwen")
    words = line(model, Place("0.0.0.0", 8080, "/models/qwen", container=True), revision="abc")
    assert words[0] == "/models/qwen"
    assert words[5:8] == ["--served-model-name", "qwen", "--shutdown-timeout"]
    assert "--revision" not in words


@pytest.mark.parametrize(
    ("limits", "version", "found", "advice"),
    [
        (Limits(max_input_tokens=5), "0.32.0", "no limit such as max_input_tokens", "max_total_tokens"),
        (Limits(max_batch_total_tokens=5), "0.32.0", "no limit such as max_batch_total_tokens", "--num-gpu-blocks"),
        (Limits(max_concurrent_requests=5), "0.21.0", "no option --max-num-queued-reqs: 0.29.0 has it", "in front"),
    ],
)
def test_limit_that_is_lacking(limits: Limits, version: str, found: str, advice: str) -> None:
    """A limit that vLLM, or this release of it, does not have is refused with the nearest that there is."""
    with pytest.raises(UsageError, match=found) as error:
        line(replace(MODEL, limits=limits), version=version)
    assert advice in (error.value.advice or "")
    with pytest.raises(UsageError, match=found):
        VLLM.flags(limits, VLLM.version(version))


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("--max_model_len", "5"), "limits/max_total_tokens"),
        (("--max-model=5",), "limits/max_total_tokens"),
        (("-tp", "4"), "gpus"),
        (("--model", "other/model"), "repo"),
        (("--device-memory-utilization", "0.5"), "limits/cuda_memory_fraction"),
    ],
)
def test_argument_that_a_key_sets(args: tuple[str, ...], key: str) -> None:
    """Said twice, whichever spelling: refused with the key's name."""
    model = replace(MODEL, gpus=2, limits=Limits(max_total_tokens=8192, cuda_memory_fraction=0.9))
    with pytest.raises(UsageError, match=f"`{key}` sets already"):
        line(model, args=args)


def test_argument_that_no_key_sets_stays() -> None:
    """A limit may be written as an argument where its key is not there; a probe takes it out again."""
    args = ("--max-model-len", "4096", "--enforce-eager", "--gpu-memory-utilization", "0.8")
    assert line(MODEL, args=args)[-5:] == list(args)
    assert VLLM.without_limits(args, ["max_total_tokens", "max_input_tokens"]) == args[2:]


@pytest.mark.parametrize(
    "args", [("--api-key", "k"), ("--api_key=k",), ("--hf-token", "t"), ("--port", "1"), ("--host", "h")]
)
def test_argument_that_is_not_the_entrys(args: tuple[str, ...]) -> None:
    """No secret stands on a command line, and the address is the harness's to choose."""
    with pytest.raises(UsageError):
        line(MODEL, args=args)


def test_file_is_refused() -> None:
    """vLLM serves whole repositories."""
    with pytest.raises(UsageError, match="no single file"):
        line(replace(MODEL, file="model.gguf"))


def test_method_of_a_checkpoint_is_left_to_vllm() -> None:
    """AWQ and GPTQ are found in the checkpoint; naming them would force the slow kernel."""
    assert "--quantization" not in line(replace(MODEL, quantize="awq"))
    assert line(replace(MODEL, quantize="awq_marlin"))[-2:] == ["--quantization", "awq_marlin"]


@pytest.mark.parametrize(
    ("word", "version"),
    [("bitsandbytes", "0.28.0"), ("fp8_per_block", "0.18.0"), ("int8_per_channel_weight_only", "0.12.0")],
)
def test_quantization_of_another_release(word: str, version: str) -> None:
    """Each release is asked only for methods that it has, and names those."""
    with pytest.raises(UsageError, match=f"cannot load quantize: {word}") as error:
        line(replace(MODEL, quantize=word), version=version)
    assert "fp8" in (error.value.advice or "")


def test_every_word_of_quantize_has_a_size() -> None:
    """What the catalogue accepts it can weigh too; vLLM's bitsandbytes are 4 bits, not 8 as TGI's."""
    from harness.catalog.shapes import bytes_per_weight

    sizes = {word: bytes_per_weight(stored_as(replace(MODEL, quantize=word))) for word in ACCEPTS.quantize}
    assert sizes["fp8_per_block"] == 1
    assert 0.5 < sizes["bitsandbytes"] < 0.6
    assert all(0.5 <= size <= 1.01 for size in sizes.values())


def test_statistics_are_not_sent_and_kernels_are_kept() -> None:
    """Usage statistics are off everywhere; a container keeps compiled graphs on the models' volume."""
    here = VLLM.invocation(MODEL, NEWEST, HERE).environment
    assert here == {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    inside = VLLM.invocation(MODEL, NEWEST, replace(HERE, container=True)).environment
    assert inside["VLLM_CACHE_ROOT"].startswith(VLLM.container(MODEL, NEWEST, with_token=False).cache_target)


def test_entrys_variables_go_before_ours() -> None:
    """`env` and a probe's changes reach the engine; an empty value takes a variable away."""
    model = replace(MODEL, env={"VLLM_ATTENTION_BACKEND": "FLASHINFER", "DO_NOT_TRACK": ""})
    environment = VLLM.invocation(model, NEWEST, HERE, changes={"VLLM_LOGGING_LEVEL": "DEBUG"}).environment
    assert environment == {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }


@pytest.mark.parametrize(
    ("variant", "version", "image"),
    [
        ("cuda", "0.32.0", "vllm/vllm-openai:v0.32.0"),
        ("cuda", "v0.10.1", "vllm/vllm-openai:v0.10.1"),
        ("cuda", "latest", "vllm/vllm-openai:latest"),
        ("rocm", "0.32.0", "vllm/vllm-openai-rocm:v0.32.0"),
        ("cpu", "0.32.0", "vllm/vllm-openai-cpu:v0.32.0"),
    ],
)
def test_image_is_the_releases_own(variant: str, version: str, image: str) -> None:
    """Each kind of image under its own repository; tags begin with v, but for `latest`."""
    model = replace(MODEL, engine=replace(MODEL.engine, variant=variant, version=version))
    assert VLLM.container(model, VLLM.version(version), with_token=True).image == image


def test_image_that_there_is_none_of() -> None:
    """An unknown kind is refused with those that there are, one from before its first release with that."""
    with pytest.raises(UsageError, match="gaudi"):
        VLLM.container(replace(MODEL, engine=replace(MODEL.engine, variant="gaudi")), NEWEST, with_token=False)
    with pytest.raises(UsageError, match=r"came with 0\.14\.0"):
        VLLM.container(replace(MODEL, engine=replace(MODEL.engine, variant="rocm")), (0, 12, 0), with_token=False)


@pytest.mark.parametrize(
    ("output", "told"), [("0.32.0\n", "0.32.0"), ("INFO 03-02 importing\n0.21.0\n", "0.21.0"), ("usage: x\n", None)]
)
def test_version_that_the_program_tells(output: str, told: str | None) -> None:
    """The number stands alone, after whatever an import logs."""
    assert VLLM.told_version(output) == told
