"""TGI's options by release, and which of them an entry sets: environment variables.

From launcher/src/main.rs (`struct Args`) of every tag from v1.0.0 to v3.3.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import EVER, Version, parse_version, version_text
from harness.engines.base import Place
from harness.errors import UsageError

NEWEST: Version = (3, 3, 7)


@dataclass(frozen=True)
class Option:
    """One option of the launcher as an environment variable. since: the first release that reads it. until: the last
    one.
    """

    since: Version = EVER
    until: Version | None = None

    def known_in(self, version: Version) -> bool:
        return self.since <= version and (self.until is None or version <= self.until)


OPTIONS: Mapping[str, Option] = {
    "MODEL_ID": Option(),
    "REVISION": Option(),
    "VALIDATION_WORKERS": Option(),
    "SHARDED": Option(),
    "NUM_SHARD": Option(),
    "QUANTIZE": Option(),
    "DTYPE": Option(),
    "TRUST_REMOTE_CODE": Option(),
    "MAX_CONCURRENT_REQUESTS": Option(),
    "MAX_BEST_OF": Option(),
    "MAX_STOP_SEQUENCES": Option(),
    "MAX_INPUT_LENGTH": Option(),
    "MAX_TOTAL_TOKENS": Option(),
    "WAITING_SERVED_RATIO": Option(),
    "MAX_BATCH_PREFILL_TOKENS": Option(),
    "MAX_BATCH_TOTAL_TOKENS": Option(),
    "MAX_WAITING_TOKENS": Option(),
    "HOSTNAME": Option(),
    "PORT": Option(),
    "SHARD_UDS_PATH": Option(),
    "MASTER_ADDR": Option(),
    "MASTER_PORT": Option(),
    "HUGGINGFACE_HUB_CACHE": Option(),
    "WEIGHTS_CACHE_OVERRIDE": Option(),
    "DISABLE_CUSTOM_KERNELS": Option(),
    "CUDA_MEMORY_FRACTION": Option(),
    "JSON_OUTPUT": Option(),
    "OTLP_ENDPOINT": Option(),
    "CORS_ALLOW_ORIGIN": Option(),
    "WATERMARK_GAMMA": Option(),
    "WATERMARK_DELTA": Option(),
    "NGROK": Option(),
    "NGROK_AUTHTOKEN": Option(),
    "NGROK_EDGE": Option(),
    "ROPE_SCALING": Option((1, 0, 1)),
    "ROPE_FACTOR": Option((1, 0, 1)),
    "MAX_TOP_N_TOKENS": Option((1, 0, 3)),
    "SPECULATE": Option((1, 3, 0)),
    "TOKENIZER_CONFIG_PATH": Option((1, 4, 0)),
    "MAX_BATCH_SIZE": Option((1, 4, 1)),
    "ENABLE_CUDA_GRAPHS": Option((1, 4, 1), (1, 4, 5)),
    "DISABLE_GRAMMAR_SUPPORT": Option((1, 4, 1)),
    "MAX_INPUT_TOKENS": Option((2, 0, 0)),
    "CUDA_GRAPHS": Option((2, 0, 0)),
    "MAX_CLIENT_BATCH_SIZE": Option((2, 0, 1)),
    "OTLP_SERVICE_NAME": Option((2, 1, 0)),
    "LORA_ADAPTERS": Option((2, 1, 0)),
    "DISABLE_USAGE_STATS": Option((2, 2, 0), (2, 2, 0)),
    "DISABLE_CRASH_REPORTS": Option((2, 2, 0), (2, 2, 0)),
    "API_KEY": Option((2, 3, 0)),
    "USAGE_STATS": Option((2, 3, 0)),
    "KV_CACHE_DTYPE": Option((2, 4, 0)),
    "PAYLOAD_LIMIT": Option((2, 4, 1)),
    "ENABLE_PREFILL_LOGPROBS": Option((3, 0, 0)),
    "GRACEFUL_TERMINATION_TIMEOUT": Option((3, 2, 2)),
    "PROMETHEUS_PORT": Option((3, 3, 0)),
    # read by the server or the router, without an option of the launcher
    "ATTENTION": Option((2, 3, 0)),
    "USE_PREFIX_CACHING": Option((2, 3, 0), (2, 3, 1)),
    "PREFIX_CACHING": Option((2, 4, 0)),
    "PREFILL_CHUNKING": Option((2, 4, 0)),
    "TGI_WIGGLE_ROOM": Option((2, 3, 0)),
}

# Further variables that change what an engine does, which a service of ours must not inherit by chance.
_ALSO_FORGOTTEN = frozenset(
    {
        "USE_FLASH_ATTENTION",
        "COMPUTE_TYPE",
        "LOG_LEVEL",
        "LOG_COLORIZE",
        "REQUEST_LOGPROBS",
        "XPU_MEMORY_FRACTION",
        "MAX_IMAGE_FETCH_SIZE",
        "RANK",
        "WORLD_SIZE",
        "NO_COLOR",
        "HARNESS_EMULATOR_GPU",
    }
)

QUANTIZE_SINCE: Mapping[str, Version] = {
    "bitsandbytes": EVER,
    "gptq": EVER,
    "bitsandbytes-nf4": (1, 0, 1),
    "bitsandbytes-fp4": (1, 0, 1),
    "awq": (1, 1, 0),
    "eetq": (1, 1, 0),
    "fp8": (2, 0, 0),
    "exl2": (2, 1, 0),
    "marlin": (2, 1, 0),
    "compressed-tensors": (2, 4, 1),
}


KV_CACHE_DTYPES = ("fp8_e4m3fn", "fp8_e5m2")
LIMIT_NAMES: Mapping[str, str] = {
    "max_input_tokens": "MAX_INPUT_TOKENS",
    "max_total_tokens": "MAX_TOTAL_TOKENS",
    "max_batch_prefill_tokens": "MAX_BATCH_PREFILL_TOKENS",
    "max_batch_total_tokens": "MAX_BATCH_TOTAL_TOKENS",
    "max_concurrent_requests": "MAX_CONCURRENT_REQUESTS",
    "max_batch_size": "MAX_BATCH_SIZE",
    "cuda_memory_fraction": "CUDA_MEMORY_FRACTION",
}
"""What each limit is called since 2.0; `limit_options` spells them for a release."""

ACCEPTS = Accepts(
    newest=version_text(NEWEST),
    dtypes=("bfloat16", "float16"),
    quantize=tuple(sorted(QUANTIZE_SINCE)),
    kv_cache_dtypes=KV_CACHE_DTYPES,
    # `fp8` is TGI's fp8_e4m3fn, the form that other engines mean by it too.
    kv_cache_aliases={"fp8": "fp8_e4m3fn"},
    # Suffixes of the image's tags (.github/workflows/build.yaml:50-212); `cuda` has none, `cpu` is it without a GPU.
    variants=("cuda", "rocm", "intel-xpu", "intel-cpu", "gaudi", "neuron", "trtllm", "llamacpp", "cpu"),
    twins={
        "MODEL_ID": ("repo",),
        "REVISION": ("revision",),
        "NUM_SHARD": ("gpus",),
        "QUANTIZE": ("quantize",),
        "DTYPE": ("dtype",),
        "KV_CACHE_DTYPE": ("kv_cache_dtype",),
        "TRUST_REMOTE_CODE": ("trust_remote_code",),
        "MAX_INPUT_LENGTH": ("limits", "max_input_tokens"),
        **{variable: ("limits", name) for name, variable in LIMIT_NAMES.items()},
    },
    # TGI refuses both, except with bitsandbytes (server/text_generation_server/cli.py:110-118).
    dtype_or_quantize=True,
    # TGI's own checks, in its words: `<` or `<=` (launcher/src/main.rs:2157-2208, backends/v3/src/main.rs:180-196).
    limit_order=(
        ("max_input_tokens", "max_total_tokens", True),
        ("max_total_tokens", "max_batch_total_tokens", False),
        ("max_batch_prefill_tokens", "max_batch_total_tokens", False),
    ),
)


def release(text: str) -> Version:
    """`3.3.7`, `latest` -> three numbers. Raises UsageError."""
    version = NEWEST if text in ("latest", "") else parse_version(text)
    if version is None:
        raise UsageError(f"no version of TGI: {text!r}", advice="Expected a release such as 3.3.7.")
    return version


def forgotten_variables() -> frozenset[str]:
    """Names that an engine reads and that must not come from the user's own environment."""
    return frozenset(OPTIONS) | _ALSO_FORGOTTEN


def options_for(
    model: Model, version: Version, changes: Mapping[str, str] | None = None, *, revision: str | None = None
) -> dict[str, str]:
    """The model's options as environment variables for this release; what is not set is left out.

    changes: further variables, or other values; an empty value takes a variable away. revision: instead of the entry's.
    Raises UsageError for an option or a value that this release does not know, naming the one that has it.
    """
    limits = model.limits
    wanted = {
        "MODEL_ID": model.repo,
        "REVISION": revision or model.revision,
        "NUM_SHARD": model.gpus,
        "DTYPE": model.dtype,
        "QUANTIZE": model.quantize,
        "KV_CACHE_DTYPE": model.kv_cache_dtype,
        "TRUST_REMOTE_CODE": "true" if model.trust_remote_code else None,
        **limit_options(limits, version),
        **_no_usage_stats(version),
        **model.env,
        **(changes or {}),
    }
    # An option that is empty is not set; what TGI does not know is passed on unchanged, unless a change empties it.
    free = {name for name, value in model.env.items() if value == "" and name not in OPTIONS} - set(changes or {})
    options = {name: str(value) for name, value in wanted.items() if value not in (None, "") or name in free}
    if model.engine.args or model.file:
        raise UsageError(
            f"TGI takes {'no arguments' if model.engine.args else 'whole repositories, no single file'}",
            where=model.name,
            advice="Write its options as variables in `env`." if model.engine.args else "Take `file` out.",
        )
    for name, value in options.items():
        _check_option(name, value, version, model.name)
    if "MAX_INPUT_TOKENS" in options and "MAX_INPUT_LENGTH" in options:  # the launcher refuses both, even when equal
        raise UsageError(
            "both MAX_INPUT_TOKENS and MAX_INPUT_LENGTH are set",
            where=model.name,
            advice="They are one limit: keep one.",
        )
    return options


def limit_options(limits: Limits, version: Version) -> dict[str, int | float | None]:
    """TGI's names of the limits; the input limit is `MAX_INPUT_LENGTH` before 2.0."""
    names = {**LIMIT_NAMES, "max_input_tokens": input_limit_name(version)}
    return {variable: getattr(limits, name) for name, variable in names.items()}


def _no_usage_stats(version: Version) -> dict[str, str]:
    """TGI posts what it serves to a Hugging Face address from within containers, since 2.2."""
    if OPTIONS["USAGE_STATS"].known_in(version):
        return {"USAGE_STATS": "off"}
    return {"DISABLE_USAGE_STATS": "true"} if OPTIONS["DISABLE_USAGE_STATS"].known_in(version) else {}


def input_limit_name(version: Version) -> str:
    """The environment variable of the largest input that this release reads."""
    return "MAX_INPUT_TOKENS" if OPTIONS["MAX_INPUT_TOKENS"].known_in(version) else "MAX_INPUT_LENGTH"


def _check_option(name: str, value: str, version: Version, model: str) -> None:
    option = OPTIONS.get(name)
    if option is not None and not option.known_in(version):
        bound = f"came with {version_text(option.since)}"
        if option.until is not None and version > option.until:
            bound = f"ended with {version_text(option.until)}"
        raise UsageError(
            f"TGI {version_text(version)} has no option {name}: it {bound}",
            where=model,
            advice="Take it out, or take another engine version.",
        )
    if name == "QUANTIZE":
        _check_quantize(value, version, model)


def _check_quantize(value: str, version: Version, model: str) -> None:
    known = [name for name, since in QUANTIZE_SINCE.items() if since <= version]
    if value in known:
        return
    since = QUANTIZE_SINCE.get(value)
    found = f"TGI {version_text(version)} cannot load quantize: {value}"
    if since is not None:
        found += f": it came with {version_text(since)}"
    raise UsageError(found, where=model, advice=f"This release knows {', '.join(sorted(known))}.")


def places_of(place: Place, version: Version, shards: int) -> dict[str, str]:
    """Address, sockets and ports of one start: what two launchers on one host would otherwise fight for."""
    places = {"HOSTNAME": place.host, "PORT": str(place.port)}
    if place.scratch is None or place.free_port is None:
        return places
    places["SHARD_UDS_PATH"] = place.scratch
    if OPTIONS["PROMETHEUS_PORT"].known_in(version):
        places["PROMETHEUS_PORT"] = str(place.free_port())
    if shards > 1:
        places["MASTER_PORT"] = str(place.free_port())
    return places
