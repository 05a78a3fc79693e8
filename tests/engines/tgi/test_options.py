"""TGI's options, images and /info, release by release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines import engine_named
from harness.engines.gauges import Gauges
from harness.engines.tgi import images, info
from harness.engines.tgi.options import NEWEST, OPTIONS, options_for, release
from harness.errors import UsageError

MODEL = Model("qwen", "Qwen/Qwen2.5-7B-Instruct")
ALL_LIMITS = Limits(
    max_input_tokens=1000,
    max_total_tokens=1200,
    max_batch_prefill_tokens=2000,
    max_batch_total_tokens=9000,
    max_concurrent_requests=64,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.3.7", (3, 3, 7)),
        ("v2.0.4", (2, 0, 4)),
        ("3.3.6-dev0", (3, 3, 6)),
        ("2.4", (2, 4, 99)),  # the tag of a line is its newest release
        ("latest", NEWEST),
    ],
)
def test_version_is_read(text: str, version: tuple[int, int, int]) -> None:
    """Release tags, line tags and what `--version` prints are understood."""
    assert release(text) == version


@pytest.mark.parametrize("text", ["three", "3.x", "sha-abc"])
def test_no_version_is_refused(text: str) -> None:
    """What is no release is a usage error that names it."""
    with pytest.raises(UsageError, match=text):
        release(text)


@pytest.mark.parametrize(
    ("version", "name"), [("1.0.0", "MAX_INPUT_LENGTH"), ("1.4.5", "MAX_INPUT_LENGTH"), ("2.0.0", "MAX_INPUT_TOKENS")]
)
def test_input_limit_has_the_name_of_its_release(version: str, name: str) -> None:
    """`--max-input-tokens` is an unknown argument before 2.0, and both names at once are refused after it."""
    options = options_for(replace(MODEL, limits=ALL_LIMITS), release(version))
    assert options[name] == "1000"
    assert ("MAX_INPUT_TOKENS" in options) != ("MAX_INPUT_LENGTH" in options)


def test_whole_environment_of_one_entry() -> None:
    """Everything the entry says becomes a variable, spelled as 3.3.7 reads it."""
    model = replace(MODEL, revision="abc", gpus=2, quantize="awq", limits=ALL_LIMITS, env={"CUDA_GRAPHS": "1,2"})
    assert options_for(model, (3, 3, 7)) == {
        "MODEL_ID": "Qwen/Qwen2.5-7B-Instruct",
        "REVISION": "abc",
        "NUM_SHARD": "2",
        "QUANTIZE": "awq",
        "MAX_INPUT_TOKENS": "1000",
        "MAX_TOTAL_TOKENS": "1200",
        "MAX_BATCH_PREFILL_TOKENS": "2000",
        "MAX_BATCH_TOTAL_TOKENS": "9000",
        "MAX_CONCURRENT_REQUESTS": "64",
        "USAGE_STATS": "off",
        "CUDA_GRAPHS": "1,2",
    }


def test_unset_options_are_left_out_and_shards_always_given() -> None:
    """An empty variable ends TGI with exit code 2, and 3.3.7 without NUM_SHARD takes every GPU it sees."""
    options = options_for(MODEL, (3, 3, 7), {"MAX_TOTAL_TOKENS": ""})
    assert options == {"MODEL_ID": MODEL.repo, "NUM_SHARD": "1", "USAGE_STATS": "off"}


@pytest.mark.parametrize(
    ("version", "change", "named"),
    [
        ("2.3.1", {"kv_cache_dtype": "fp8_e4m3fn"}, "2.4.0"),
        ("1.4.0", {"limits": Limits(max_batch_size=4)}, "1.4.1"),
        ("3.2.3", {"env": {"PROMETHEUS_PORT": "9001"}}, "3.3.0"),
        ("3.2.1", {"env": {"GRACEFUL_TERMINATION_TIMEOUT": "5"}}, "3.2.2"),
        ("2.4.0", {"env": {"USE_PREFIX_CACHING": "1"}}, "2.3.1"),  # ended there
        ("2.4.0", {"quantize": "compressed-tensors"}, "2.4.1"),
        ("1.0.3", {"quantize": "awq"}, "1.1.0"),
    ],
)
def test_option_of_another_release_is_refused(version: str, change: dict[str, object], named: str) -> None:
    """TGI ignores an unknown variable in silence; we name the release that has it."""
    with pytest.raises(UsageError, match=named) as refusal:
        options_for(replace(MODEL, **change), release(version))  # type: ignore[arg-type]
    assert refusal.value.exit_code == 2
    assert "qwen" in str(refusal.value)


def test_both_names_of_the_input_limit_are_refused() -> None:
    """The launcher ends with an error when both are set, even to the same value."""
    with pytest.raises(UsageError, match="MAX_INPUT_LENGTH"):
        options_for(replace(MODEL, limits=ALL_LIMITS, env={"MAX_INPUT_LENGTH": "1000"}), (3, 3, 7))


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_lives_in_some_release(name: str) -> None:
    """The table's bounds are in order, and whatever has no end is known to the newest release."""
    option = OPTIONS[name]
    assert option.known_in(option.until or NEWEST)
    assert option.until is None or option.since <= option.until


def test_info_of_the_newest_release() -> None:
    """3.3.7 tells the input and total limit, and nothing of its token budget."""
    told = info.read_info(
        {
            "model_id": "a/b",
            "model_sha": None,
            "max_concurrent_requests": 128,
            "max_input_tokens": 8191,
            "max_total_tokens": 8192,
            "version": "3.3.6-dev0",
            "docker_label": "sha-1234567",
        }
    )
    assert (told.version, told.model_id, told.emulated) == ("3.3.6-dev0", "a/b", False)
    assert (told.limits.max_input_tokens, told.limits.max_total_tokens) == (8191, 8192)
    assert told.limits.max_batch_total_tokens is None


def test_info_of_an_old_release() -> None:
    """1.4 calls the input limit max_input_length, and tells the budget."""
    told = info.read_info(
        {
            "model_id": "a/b",
            "max_input_length": 1024,
            "max_total_tokens": 2048,
            "max_batch_total_tokens": 46000,
            "max_concurrent_requests": 128,
            "waiting_served_ratio": 1.2,
            "version": "1.4.0",
        }
    )
    assert told.limits.max_input_tokens == 1024
    assert told.limits.max_batch_total_tokens == 46000


def test_emulator_is_known_by_its_label() -> None:
    """What the emulator serves is never taken for a measurement."""
    assert info.read_info({"model_id": "a", "max_total_tokens": 1, "docker_label": "harness-emulator"}).emulated


@pytest.mark.parametrize("document", [None, [], {"object": "list"}, {"model_id": "x"}])
def test_other_documents_are_no_info(document: object) -> None:
    """Another engine's answer is not taken for TGI's."""
    assert not info.is_info(document)


@pytest.mark.parametrize(
    ("version", "variant", "image"),
    [
        ("3.3.7", "cuda", "ghcr.io/huggingface/text-generation-inference:3.3.7"),
        ("3.3.7", "rocm", "ghcr.io/huggingface/text-generation-inference:3.3.7-rocm"),
        ("v3.3.7", "intel-cpu", "ghcr.io/huggingface/text-generation-inference:3.3.7-intel-cpu"),
    ],
)
def test_image_of_a_variant(version: str, variant: str, image: str) -> None:
    """The tag is the release and the variant's suffix."""
    assert images.image_name(version, images.variant_named(variant, release(version), "m")) == image


@pytest.mark.parametrize(("name", "version"), [("cude", "3.3.7"), ("gaudi", "3.2.0"), ("rocm", "1.1.1")])
def test_variant_that_was_not_published_is_refused(name: str, version: str) -> None:
    """An unknown variant, and one that came later than the release."""
    with pytest.raises(UsageError):
        images.variant_named(name, release(version), "m")


@pytest.mark.parametrize(
    ("version", "variant", "layout", "places"),
    [
        ("3.3.7", "cuda", "home", ("/data/token",)),
        ("3.2.1", "cuda", "home", ("/data/token",)),
        ("3.2.0", "cuda", "home", (images.TOKEN_FILE,)),
        ("2.2.0", "cuda", "hub", (images.TOKEN_FILE,)),
        ("3.3.7", "intel-cpu", "hub", ("/root/.cache/huggingface/token",)),
    ],
)
def test_cache_and_token_have_the_places_of_the_image(
    version: str, variant: str, layout: str, places: tuple[str, ...]
) -> None:
    """HF_HOME=/data and HUGGINGFACE_HUB_CACHE=/data are two layouts, and Python and Rust look for the token in both."""
    number = release(version)
    kind = images.variant_named(variant, number, "m")
    assert images.cache_layout(number, kind) == layout
    assert images.token_places(number, kind) == places


@pytest.mark.parametrize(
    ("version", "variant", "token", "start"),
    [
        ("3.3.7", "cuda", True, None),  # both read the file, and the script hands its process over
        ("3.2.0", "cuda", False, None),
        ("3.2.0", "cuda", True, f'export HF_TOKEN="$(cat {images.TOKEN_FILE})"; exec /tgi-entrypoint.sh'),
        ("2.3.1", "cuda", False, "ldconfig 2>/dev/null; exec text-generation-launcher"),
        (
            "2.0.4",
            "rocm",
            True,
            f'export HUGGING_FACE_HUB_TOKEN="$(cat {images.TOKEN_FILE})"; '
            "ldconfig 2>/dev/null; exec text-generation-launcher",
        ),
        ("1.4.0", "cuda", False, None),
        ("3.1.0", "intel-cpu", False, None),
        ("3.3.7", "gaudi", True, "ldconfig 2>/dev/null; exec text-generation-launcher"),
    ],
)
def test_start_of_a_container_is_mended_where_the_release_needs_it(
    version: str, variant: str, token: bool, start: str | None
) -> None:
    """Routers before 3.2.1 take a token from their environment alone; scripts of 2.0 to 2.3 and of Gaudi's images stay
    between the container's end and the launcher.
    """
    number = release(version)
    given = images.entrypoint(number, images.variant_named(variant, number, "m"), token=token)
    assert given == (() if start is None else ("bash", "-c", start))


def test_load_is_read_from_metrics() -> None:
    """Three gauges say what the engine is doing; a fresh server has none of them."""
    page = "# TYPE tgi_queue_size gauge\ntgi_queue_size 3\n\ntgi_batch_current_size 2\n"
    page += "tgi_batch_current_max_tokens 512\n"
    assert info.read_gauges(page) == Gauges(running=2, waiting=3, kv_tokens=512)
    assert info.read_gauges("") == Gauges()


def test_durations_are_read_from_metrics() -> None:
    """Sums and counts of the router's histograms of whole requests, not of its batches."""
    page = "".join(
        f"tgi_request_{name}_duration_sum {seconds}\ntgi_request_{name}_duration_count 4\n"
        for name, seconds in (("validation", 0.5), ("queue", 2.5), ("inference", 10))
    )
    assert info.read_gauges(page + 'tgi_batch_inference_duration_sum{method="prefill"} 99\n') == Gauges(
        validation_seconds=0.5, validation_count=4, queue_seconds=2.5, queue_count=4,
        inference_seconds=10, inference_count=4,
    )  # fmt: skip


def test_a_search_has_its_requests_read_in_order_and_recommends_no_more_than_it_must() -> None:
    """One tokeniser thread keeps a short prompt from overtaking a long one; what serves later needs it not."""
    engine = engine_named("tgi")
    assert engine.exploring(proving=False) == {"WAITING_SERVED_RATIO": "0", "VALIDATION_WORKERS": "1"}
    assert engine.exploring(proving=True) == {"WAITING_SERVED_RATIO": "0"}
