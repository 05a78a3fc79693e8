"""SGLang's command line, release by release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.engines import engine_named, stored_as
from harness.engines.arguments import is_flag
from harness.engines.base import Place
from harness.engines.sglang.options import ACCEPTS, FLAGS, NEWEST
from harness.errors import UsageError

SGLANG = engine_named("sglang")
HERE = Place("127.0.0.1", 8001)
MODEL = Model("qwen", "Qwen/Qwen2.5-7B-Instruct", engine=EngineChoice("sglang", "0.5.23"))
OURS = ("--served-model-name", "qwen", "--enable-metrics", "--enable-cache-report")


def line(model: Model, place: Place = HERE, revision: str | None = None, **engine: object) -> list[str]:
    entry = replace(model, engine=replace(model.engine, **engine))  # type: ignore[arg-type]
    return list(SGLANG.invocation(entry, SGLANG.version(entry.engine.version), place, revision=revision).args)


def test_whole_command_line() -> None:
    """The model, where it listens, what SGLang is told without being asked, then what the entry says.

    A request of 8,192 tokens needs a context of one more; 200 at once of which 64 run leave 136 to wait.
    """
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
            max_batch_total_tokens=90000,
            max_batch_size=64,
            max_concurrent_requests=200,
            cuda_memory_fraction=0.85,
        ),
    )
    words = line(model, revision="abc", args=("--schedule-policy", "lpm"))
    assert words[:6] == ["--model-path", "Qwen/Qwen2.5-7B-Instruct", "--host", "127.0.0.1", "--port", "8001"]
    assert words[6:10] == list(OURS)
    assert words[-2:] == ["--schedule-policy", "lpm"]
    assert dict(FLAGS.given(words[10:-2])) == {
        "--revision": "abc",
        "--tp-size": "2",
        "--dtype": "bfloat16",
        "--quantization": "fp8",
        "--kv-cache-dtype": "fp8_e5m2",
        "--trust-remote-code": None,
        "--context-length": "8193",
        "--chunked-prefill-size": "4096",
        "--max-total-tokens": "90000",
        "--max-running-requests": "64",
        "--max-queued-requests": "136",
        "--mem-fraction-static": "0.85",
    }


def test_bare_entry_leaves_the_rest_to_sglang() -> None:
    """Nothing is set that the entry does not say, but for what we could not see without."""
    assert line(MODEL)[6:] == list(OURS)


@pytest.mark.parametrize("version", [f"{a}.{b}.{c}" for a, b, c in FLAGS.releases])
def test_every_flag_is_one_of_the_release(version: str) -> None:
    """Whatever an entry says, no release is given a flag that its parser does not have."""
    model = replace(
        MODEL,
        gpus=2,
        dtype="float16",
        quantize="fp8",
        kv_cache_dtype="fp8_e4m3",
        trust_remote_code=True,
        limits=Limits(max_total_tokens=512, max_batch_prefill_tokens=512, max_batch_size=4, cuda_memory_fraction=0.5),
    )
    for word in line(model, version=version):
        if is_flag(word):
            assert FLAGS.flag_of(word) == word
            assert FLAGS.known_in(word, SGLANG.version(version))


def test_own_argument_goes_before_ours() -> None:
    """What the entry names itself is not given twice."""
    own = line(MODEL, args=("--served-model-name", "other"))
    assert own.count("--served-model-name") == 1
    assert own[-2:] == ["--served-model-name", "other"]


def test_local_model_has_the_entrys_name() -> None:
    """A directory is served from where the engine sees it, without a revision."""
    model = replace(MODEL, repo="/srv/models/qwen")
    words = line(model, Place("0.0.0.0", 8080, "/models/qwen", container=True), revision="abc")
    assert words[:2] == ["--model-path", "/models/qwen"]
    assert "--revision" not in words


@pytest.mark.parametrize(
    ("limits", "version", "found", "advice"),
    [
        (Limits(max_input_tokens=5), "0.5.23", "no limit such as max_input_tokens", "max_total_tokens"),
        (Limits(max_concurrent_requests=5), "0.4.6.post5", "no option --max-queued-requests", "in front"),
    ],
)
def test_limit_that_is_lacking(limits: Limits, version: str, found: str, advice: str) -> None:
    """A limit that SGLang, or this release of it, does not have is refused with the nearest that there is."""
    with pytest.raises(UsageError, match=found) as error:
        line(replace(MODEL, limits=limits), version=version)
    assert advice in (error.value.advice or "")


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("--context-length", "5"), "limits/max_total_tokens"),
        (("--context-le=5",), "limits/max_total_tokens"),
        (("--tp", "4"), "gpus"),
        (("--model", "other/model"), "repo"),
        (("--mem-fraction", "0.5"), "limits/cuda_memory_fraction"),
    ],
)
def test_argument_that_a_key_sets(args: tuple[str, ...], key: str) -> None:
    """Said twice, whichever spelling: refused with the key's name."""
    model = replace(MODEL, gpus=2, limits=Limits(max_total_tokens=8192, cuda_memory_fraction=0.9))
    with pytest.raises(UsageError, match=f"`{key}` sets already"):
        line(model, args=args)


def test_limit_as_an_argument_is_taken_out_by_a_probe() -> None:
    """A limit may be written as an argument where its key is not there; a probe takes it out again."""
    args = ("--context-length", "4096", "--disable-radix-cache", "--mem-fraction-static", "0.8")
    assert line(MODEL, args=args)[-5:] == list(args)
    assert SGLANG.without_limits(args, ["max_total_tokens", "max_input_tokens"]) == args[2:]


@pytest.mark.parametrize(
    "args", [("--api-key", "k"), ("--api-key=k",), ("--admin-api-key", "t"), ("--port", "1"), ("--host", "h")]
)
def test_argument_that_is_not_the_entrys(args: tuple[str, ...]) -> None:
    """No secret stands on a command line, and the address is the harness's to choose."""
    with pytest.raises(UsageError):
        line(MODEL, args=args)


def test_file_is_refused() -> None:
    """SGLang serves whole repositories."""
    with pytest.raises(UsageError, match="no single file"):
        line(replace(MODEL, file="model.gguf"))


@pytest.mark.parametrize(("word", "version"), [("mxfp4", "0.4.6.post5"), ("marlin", "0.5.23")])
def test_quantization_of_another_release(word: str, version: str) -> None:
    """Each release is asked only for methods that it has, and names those."""
    with pytest.raises(UsageError, match=f"cannot load quantize: {word}") as error:
        line(replace(MODEL, quantize=word), version=version)
    assert "fp8" in (error.value.advice or "")


def test_method_of_a_checkpoint_is_left_to_sglang() -> None:
    """AWQ and GPTQ are found in the checkpoint; naming them would force the slow kernel."""
    assert "--quantization" not in line(replace(MODEL, quantize="awq"))
    assert line(replace(MODEL, quantize="awq_marlin"))[-2:] == ["--quantization", "awq_marlin"]


def test_every_word_of_quantize_has_a_size() -> None:
    """What the catalogue accepts it can weigh too."""
    from harness.catalog.shapes import bytes_per_weight

    sizes = {word: bytes_per_weight(stored_as(replace(MODEL, quantize=word))) for word in ACCEPTS.quantize}
    assert sizes["w8a8_int8"] == 1
    assert all(0.5 <= size <= 1.01 for size in sizes.values())


def test_newest_release_is_one_that_was_read() -> None:
    """The default version's flags are known."""
    assert NEWEST in FLAGS.releases
