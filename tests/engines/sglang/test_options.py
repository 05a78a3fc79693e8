"""SGLang's command line, release by release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import EngineChoice, Model
from harness.catalog.shapes import bytes_per_weight
from harness.engines import engine_named, stored_as
from harness.engines.arguments import is_flag
from harness.engines.base import Place
from harness.engines.sglang.options import ACCEPTS, FLAGS, NEWEST
from harness.errors import UsageError

SGLANG = engine_named("sglang")
HERE = Place("127.0.0.1", 8002)
MODEL = Model("own", "acme/own-model", engine=EngineChoice("sglang", "0.5.23"))
ADDRESS = ["--host", "127.0.0.1", "--port", "8002"]
ALWAYS = ["--served-model-name", "own", "--enable-metrics", "--enable-cache-report"]


def line(model: Model, place: Place = HERE, revision: str | None = None, **engine: object) -> list[str]:
    entry = replace(model, engine=replace(model.engine, **engine))  # type: ignore[arg-type]
    return list(SGLANG.invocation(entry, SGLANG.version(entry.engine.version), place, revision=revision).args)


def test_whole_command_line() -> None:
    """The model, where it listens, its name and metrics, what the entry says, its own arguments last."""
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
            max_batch_total_tokens=60_000,
            max_concurrent_requests=200,
            max_batch_size=64,
            cuda_memory_fraction=0.9,
        ),
    )
    assert line(model, revision="abc", args=("--enable-mixed-chunk",)) == [
        *("--model-path", "acme/own-model", *ADDRESS, *ALWAYS),
        *("--revision", "abc", "--tp-size", "2", "--dtype", "bfloat16"),
        *("--quantization", "fp8", "--kv-cache-dtype", "fp8_e5m2", "--trust-remote-code"),
        *("--context-length", "8194", "--chunked-prefill-size", "4096", "--max-total-tokens", "60000"),
        *("--max-queued-requests", "136", "--max-running-requests", "64", "--mem-fraction-static", "0.9"),
        "--enable-mixed-chunk",
    ]


def test_bare_entry_leaves_the_rest_to_sglang() -> None:
    """Metrics are switched on, and nothing else is set that the entry does not say."""
    assert line(MODEL) == ["--model-path", "acme/own-model", *ADDRESS, *ALWAYS]


@pytest.mark.parametrize("version", [f"{a}.{b}.{c}" for a, b, c in FLAGS.releases])
def test_every_flag_is_one_of_the_release(version: str) -> None:
    """Whatever an entry says, no release is given a flag that its parser does not have, nor one by half its name."""
    limits = Limits(
        max_total_tokens=512,
        max_batch_prefill_tokens=512,
        max_batch_total_tokens=4096,
        max_batch_size=4,
        cuda_memory_fraction=0.5,
    )
    model = replace(
        MODEL, gpus=2, dtype="float16", quantize="fp8", kv_cache_dtype="fp8", trust_remote_code=True, limits=limits
    )
    release = SGLANG.version(version)
    for word in line(model, version=version):
        if is_flag(word):
            assert FLAGS.known_in(FLAGS.flag_of(word) or "", release)
            assert word in FLAGS.known or any(word in flag.also for flag in FLAGS.known.values())


@pytest.mark.parametrize(
    ("repo", "own", "asked", "given"),
    [
        ("acme/own-model", None, 8192, "8194"),  # two tokens of the context are never a request's
        ("acme/own-model", 8192, 8192, "8192"),  # but a context above the model's own is refused
        ("acme/own-model", 8192, 8191, "8192"),
        ("acme/own-model", 8192, 8000, "8002"),
        ("acme/own-model", 8192, 9000, "9002"),  # which SGLang itself will say
        ("Qwen/Qwen2.5-7B-Instruct", None, 32768, "32768"),
    ],
)
def test_context_has_room_for_the_longest_request(repo: str, own: int | None, asked: int, given: str) -> None:
    """A request of max_total_tokens is answered in full, as far as the model's own context allows it."""
    model = replace(MODEL, repo=repo, context_length=own, limits=Limits(max_total_tokens=asked))
    words = line(model)
    assert words[words.index("--context-length") + 1] == given


@pytest.mark.parametrize(
    ("limits", "queued"),
    [
        (Limits(max_concurrent_requests=100, max_batch_size=60), "40"),
        (Limits(max_concurrent_requests=100), "100"),
        (Limits(max_concurrent_requests=60, max_batch_size=60), "1"),  # with none it would refuse everybody
    ],
)
def test_queue_is_what_those_that_run_leave(limits: Limits, queued: str) -> None:
    """SGLang counts those that wait alone, our limit those that run too."""
    assert SGLANG.flags(limits, NEWEST)["--max-queued-requests"] == queued


@pytest.mark.parametrize(
    ("limits", "version", "found", "advice"),
    [
        (Limits(max_input_tokens=5), "0.5.23", "no limit such as max_input_tokens", "max_total_tokens"),
        (Limits(max_concurrent_requests=5), "0.4.6", "no option --max-queued-requests: 0.5.3 has it", "in front"),
    ],
)
def test_limit_that_is_lacking(limits: Limits, version: str, found: str, advice: str) -> None:
    """A limit that SGLang, or this release of it, does not have is refused with the nearest that there is."""
    with pytest.raises(UsageError, match=found) as error:
        line(replace(MODEL, limits=limits), version=version)
    assert advice in (error.value.advice or "")
    with pytest.raises(UsageError, match=found):
        SGLANG.flags(limits, SGLANG.version(version))


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (("--context-length", "5"), "limits/max_total_tokens"),
        (("--tp", "4"), "gpus"),
        (("--tensor-parallel-size=4",), "gpus"),
        (("--model", "other/model"), "repo"),
        (("--mem-fraction", "0.5"), "limits/cuda_memory_fraction"),
    ],
)
def test_argument_that_a_key_sets(args: tuple[str, ...], key: str) -> None:
    """Said twice, whichever spelling: refused with the key's name."""
    model = replace(MODEL, gpus=2, limits=Limits(max_total_tokens=8192, cuda_memory_fraction=0.9))
    with pytest.raises(UsageError, match=f"`{key}` sets already"):
        line(model, args=args)


def test_argument_that_no_key_sets_stays() -> None:
    """A limit may be written as an argument where its key is not there; a probe takes it out again."""
    args = ("--context-length", "4096", "--disable-radix-cache", "--mem-fraction-static", "0.8")
    assert line(MODEL, args=args)[-5:] == list(args)
    assert SGLANG.without_limits(args, ["max_total_tokens", "max_input_tokens"]) == args[2:]


@pytest.mark.parametrize("args", [("--api-key", "k"), ("--admin-api-key=k",), ("--port", "1"), ("--host", "h")])
def test_argument_that_is_not_the_entrys(args: tuple[str, ...]) -> None:
    """No secret stands on a command line, and the address is the harness's to choose."""
    with pytest.raises(UsageError):
        line(MODEL, args=args)


def test_own_name_goes_before_ours() -> None:
    """An entry may serve its model under another name."""
    words = line(MODEL, args=("--served-model-name", "tgi"))
    assert words.count("--served-model-name") == 1
    assert words[-1] == "tgi"


def test_method_of_a_checkpoint_is_left_to_sglang() -> None:
    """AWQ and GPTQ are found in the checkpoint."""
    assert "--quantization" not in line(replace(MODEL, quantize="awq"))
    assert "--quantization" in line(replace(MODEL, quantize="awq_marlin"))


@pytest.mark.parametrize(("word", "version"), [("mxfp4", "0.4.6"), ("marlin", "0.5.23")])
def test_quantization_of_another_release(word: str, version: str) -> None:
    """Each release is asked only for methods that it has, and names those."""
    with pytest.raises(UsageError, match=f"cannot load quantize: {word}") as error:
        line(replace(MODEL, quantize=word), version=version)
    assert "fp8" in (error.value.advice or "")


def test_every_word_of_quantize_has_a_size() -> None:
    """What the catalogue accepts it can weigh too."""
    sizes = {word: bytes_per_weight(stored_as(replace(MODEL, quantize=word))) for word in ACCEPTS.quantize}
    assert 0.5 < sizes["bitsandbytes"] < 0.6
    assert sizes["w8a8_int8"] == 1


def test_bitsandbytes_need_a_loader_of_their_own() -> None:
    """The method alone does not load such weights."""
    assert line(replace(MODEL, quantize="bitsandbytes"))[-4:] == [
        *("--quantization", "bitsandbytes", "--load-format", "bitsandbytes")
    ]


def test_file_is_refused() -> None:
    """SGLang serves whole repositories."""
    with pytest.raises(UsageError, match="no single file"):
        line(replace(MODEL, file="model.gguf"))


def test_local_model_is_where_the_engine_sees_it() -> None:
    """A directory is served without a revision."""
    words = line(replace(MODEL, repo="/srv/own"), Place("0.0.0.0", 8080, "/models/own", container=True), "abc")
    assert words[:2] == ["--model-path", "/models/own"]
    assert "--revision" not in words


@pytest.mark.parametrize(
    ("version", "image"), [("0.5.23", "lmsysorg/sglang:v0.5.23"), ("latest", "lmsysorg/sglang:latest")]
)
def test_image_is_the_releases_own(version: str, image: str) -> None:
    """Tags begin with v, but for `latest`; the image has no program of its own to start."""
    model = replace(MODEL, engine=replace(MODEL.engine, version=version))
    container = SGLANG.container(model, NEWEST, with_token=True)
    assert (container.image, container.entrypoint) == (image, ("python3", "-m", "sglang.launch_server"))
    with pytest.raises(UsageError, match="rocm"):
        SGLANG.container(replace(MODEL, engine=replace(MODEL.engine, variant="rocm")), NEWEST, with_token=False)


@pytest.mark.parametrize(
    ("output", "told"), [("0.5.23\n", "0.5.23"), ("Python 3.12.3\n", None), ("sglang 0.5.3", "0.5.3")]
)
def test_version_that_the_program_tells(output: str, told: str | None) -> None:
    """The Python that starts it tells its own number, which is not SGLang's."""
    assert SGLANG.told_version(output) == told
