"""Text Generation Inference: its versions, options and images, and what it says of itself.

Facts are from TGI's source at its release tags: the launcher's options from launcher/src/main.rs (`struct Args`) of
every tag from v1.0.0 to v3.3.7, the images from its Dockerfiles, `/info` from router/src/lib.rs (`struct Info`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.catalog.models import Limits, Model
from harness.engines.base import EngineInfo, EngineLimits
from harness.errors import UsageError

Version = tuple[int, int, int]
NEWEST: Version = (3, 3, 7)
EMULATOR_LABEL = "harness-emulator"  # `docker_label` in the emulator's /info

_EVER: Version = (0, 0, 0)


@dataclass(frozen=True)
class Option:
    """One option of the launcher as an environment variable. since: the first release that reads it. until: the last
    one.
    """

    since: Version = _EVER
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
    "bitsandbytes": _EVER,
    "gptq": _EVER,
    "bitsandbytes-nf4": (1, 0, 1),
    "bitsandbytes-fp4": (1, 0, 1),
    "awq": (1, 1, 0),
    "eetq": (1, 1, 0),
    "fp8": (2, 0, 0),
    "exl2": (2, 1, 0),
    "marlin": (2, 1, 0),
    "compressed-tensors": (2, 4, 1),
}


def parse_version(text: str) -> Version:
    """`3.3.7`, `v2.0`, `3.3.6-dev0`, `latest` -> three numbers; a missing part counts as the newest of its line.

    Raises UsageError.
    """
    if text in ("latest", ""):
        return NEWEST
    match = re.fullmatch(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+].*)?", text.strip())
    if match is None:
        raise UsageError(f"no version of TGI: {text!r}", advice="Expected a release such as 3.3.7.")
    major, minor, patch = match.groups()
    return int(major), 99 if minor is None else int(minor), 99 if patch is None else int(patch)


def version_text(version: Version) -> str:
    return ".".join(str(part) for part in version if part != 99)


def forgotten_variables() -> frozenset[str]:
    """Names that an engine reads and that must not come from the user's own environment."""
    return frozenset(OPTIONS) | _ALSO_FORGOTTEN


def options_for(model: Model, version: Version, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The model's options as environment variables for this release; what is not set is left out.

    changes: further variables, or other values; an empty value takes a variable away. Raises UsageError for an option
    or a value that this release does not know, naming the one that has it.
    """
    limits = model.limits
    wanted = {
        "MODEL_ID": model.repo,
        "REVISION": model.revision,
        "NUM_SHARD": model.gpus,
        "DTYPE": model.dtype,
        "QUANTIZE": model.quantize,
        "KV_CACHE_DTYPE": model.kv_cache_dtype,
        "TRUST_REMOTE_CODE": "true" if model.trust_remote_code else None,
        **limit_options(limits, version),
        "CUDA_MEMORY_FRACTION": limits.cuda_memory_fraction,
        **_no_usage_stats(version),
        **model.env,
        **(changes or {}),
    }
    options = {name: str(value) for name, value in wanted.items() if value not in (None, "")}
    for name, value in options.items():
        _check_option(name, value, version, model.name)
    if "MAX_INPUT_TOKENS" in options and "MAX_INPUT_LENGTH" in options:  # the launcher refuses both, even when equal
        raise UsageError(
            "both MAX_INPUT_TOKENS and MAX_INPUT_LENGTH are set",
            where=model.name,
            advice="They are one limit: keep one.",
        )
    return options


def limit_options(limits: Limits | EngineLimits, version: Version) -> dict[str, int | None]:
    """TGI's names of the limits; the input limit is `MAX_INPUT_LENGTH` before 2.0."""
    return {
        input_limit_name(version): limits.max_input_tokens,
        "MAX_TOTAL_TOKENS": limits.max_total_tokens,
        "MAX_BATCH_PREFILL_TOKENS": limits.max_batch_prefill_tokens,
        "MAX_BATCH_TOTAL_TOKENS": limits.max_batch_total_tokens,
        "MAX_CONCURRENT_REQUESTS": limits.max_concurrent_requests,
        "MAX_BATCH_SIZE": limits.max_batch_size,
    }


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


def read_info(document: Mapping[str, object]) -> EngineInfo:
    """What `/info` says, of any release: 2.2 and older also tell the token budget, and call the input limit by its
    older name.
    """

    def number(*names: str) -> int | None:
        for name in names:
            value = document.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def text(name: str) -> str | None:
        value = document.get(name)
        return value if isinstance(value, str) else None

    return EngineInfo(
        engine="tgi",
        version=text("version"),
        model_id=text("model_id"),
        emulated=text("docker_label") == EMULATOR_LABEL,
        limits=EngineLimits(
            max_input_tokens=number("max_input_tokens", "max_input_length"),
            max_total_tokens=number("max_total_tokens"),
            max_batch_total_tokens=number("max_batch_total_tokens"),
            max_concurrent_requests=number("max_concurrent_requests"),
            max_batch_size=number("max_batch_size"),
        ),
        raw=dict(document),
    )


def is_info(document: object) -> bool:
    """Whether this is TGI's own /info."""
    return isinstance(document, Mapping) and "model_id" in document and "max_total_tokens" in document


@dataclass(frozen=True)
class EngineLoad:
    """What an engine is doing now; None where it has not said anything yet. reserved_tokens: of the token budget."""

    queued: int | None = None
    running: int | None = None
    reserved_tokens: int | None = None


def read_load(page: str) -> EngineLoad:
    """From a page of /metrics; TGI writes a gauge only after its first change, so an idle new server says nothing."""

    def gauge(name: str) -> int | None:
        match = re.search(rf"^{name} ([0-9.eE+]+)$", page, re.MULTILINE)
        return None if match is None else int(float(match[1]))

    return EngineLoad(gauge("tgi_queue_size"), gauge("tgi_batch_current_size"), gauge("tgi_batch_current_max_tokens"))


# ---- images


@dataclass(frozen=True)
class Variant:
    """One kind of TGI's image, and what a container of it needs. since: the first release that was published.

    accelerator: `nvidia` is reserved by device id; `devices` are handed in as files; `none` needs nothing. visible: the
    variable that leaves some of the devices to a container. sharded: variables that several shards need besides.
    cache: `home` keeps models in /data/hub (HF_HOME=/data), `hub` in /data itself (HUGGINGFACE_HUB_CACHE=/data), so
    the two must not share a volume. read_only: whether all but the cache and the places of compose/service.yaml may be
    kept read-only. script: the first release whose container starts by /tgi-entrypoint.sh, before by the launcher
    itself; None for always the latter. exec: the first release whose script hands its process over to the launcher.
    """

    suffix: str
    since: Version
    accelerator: str = "none"
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    runtime: str | None = None
    privileged: bool = False
    host_ipc: bool = False
    visible: str | None = None
    sharded: Mapping[str, str] = field(default_factory=dict)
    cache: str = "home"
    read_only: bool = False
    script: Version | None = None
    exec: Version | None = None


# Tags from .github/workflows/build.yaml of the release tags, entrypoints and caches from the Dockerfiles there; devices
# from docs/source/installation_*.md and docs/source/backends.
VARIANTS: Mapping[str, Variant] = {
    "cuda": Variant("", _EVER, "nvidia", read_only=True, script=(2, 0, 0), exec=(2, 4, 0)),
    # The same image without a GPU: slow, and only some models serve more than one request at once.
    "cpu": Variant("", _EVER, read_only=True, script=(2, 0, 0), exec=(2, 4, 0)),
    "rocm": Variant(
        "-rocm",
        (1, 2, 0),
        "devices",
        devices=("/dev/kfd", "/dev/dri"),
        groups=("video",),
        capabilities=("SYS_PTRACE",),
        security=("seccomp=unconfined",),
        host_ipc=True,
        visible="ROCR_VISIBLE_DEVICES",
        script=(2, 0, 4),
        exec=(2, 4, 0),
    ),
    "intel-xpu": Variant(
        "-intel-xpu",
        (2, 3, 0),
        "devices",
        devices=("/dev/dri",),
        privileged=True,
        host_ipc=True,
        visible="ZE_AFFINITY_MASK",
    ),
    # SYS_NICE: a shard binds its memory to one NUMA node, which Docker's own rules keep from it otherwise
    # (server/text_generation_server/models/flash_causal_lm.py:94-121).
    "intel-cpu": Variant("-intel-cpu", (2, 3, 0), capabilities=("SYS_NICE",), cache="hub"),
    "gaudi": Variant(
        "-gaudi",
        (3, 2, 1),
        "devices",
        runtime="habana",
        capabilities=("SYS_NICE",),
        host_ipc=True,
        visible="HABANA_VISIBLE_DEVICES",
        # Its script looks for `--sharded true` among the arguments, where our options never are.
        sharded={"PT_HPU_ENABLE_LAZY_COLLECTIVES": "1"},
        script=_EVER,
    ),
}
IMAGE = "ghcr.io/huggingface/text-generation-inference"


def variant_named(name: str, version: Version, where: str) -> Variant:
    """Raises UsageError for a kind of image that is unknown, or that this release does not have."""
    variant = VARIANTS.get(name)
    if variant is None:
        raise UsageError(
            f"no stack for the image variant {name!r}", where=where, advice=f"Known: {', '.join(VARIANTS)}."
        )
    if version < variant.since:
        raise UsageError(
            f"TGI {version_text(version)} has no image {variant.suffix}: it came with {version_text(variant.since)}",
            where=where,
            advice="Take a newer engine version.",
        )
    return variant


def image_name(version: str, variant: Variant) -> str:
    """`ghcr.io/huggingface/text-generation-inference:3.3.7-rocm`."""
    return f"{IMAGE}:{version.removeprefix('v')}{variant.suffix}"


def cache_layout(version: Version, variant: Variant) -> str:
    """`home` or `hub` as in Variant; CUDA images before 2.3 keep models as `hub` does."""
    return "hub" if version < (2, 3, 0) else variant.cache


TOKEN_FILE = "/run/secrets/hub-token"  # where a container's script finds it, in releases that need one for it


def token_places(version: Version, variant: Variant, *, own_image: bool = False) -> tuple[str, ...]:
    """Where in a container the file with the Hub token is put.

    Python's huggingface_hub reads $HF_HOME/token, by default ~/.cache/huggingface/token. The Rust crate hf-hub reads
    the same from TGI 3.2.1 on (`ApiBuilder::from_env`). own_image: of a user's, whose HF_HOME nobody here knows.
    Before 3.2.1 the router drops or misses the file's token: see `token_variable`.
    """
    if version < _TOKEN_FILE_SINCE:
        return (TOKEN_FILE,)
    home, hub = "/data/token", "/root/.cache/huggingface/token"
    if own_image:
        return home, hub
    return (hub,) if cache_layout(version, variant) == "hub" else (home,)


_TOKEN_FILE_SINCE: Version = (3, 2, 1)


def token_variable(version: Version) -> str:
    """The environment variable by which every part of this release takes a Hub token (router/src, launcher/src)."""
    return "HF_TOKEN" if version >= (2, 1, 0) else "HUGGING_FACE_HUB_TOKEN"


def entrypoint(version: Version, variant: Variant, *, token: bool) -> tuple[str, ...]:
    """What a container starts with instead of the image's own; empty where that does.

    Two things are mended: the router of releases before 3.2.1 takes a Hub token from its environment alone (`token`:
    there is one), and the script of some images keeps the signals that end the container from the launcher, so that
    open requests would be cut off.
    """
    deaf = variant.script is not None and version >= variant.script and (variant.exec is None or version < variant.exec)
    exported = token and version < _TOKEN_FILE_SINCE
    if not deaf and not exported:
        return ()
    with_script = variant.script is not None and version >= variant.script and not deaf
    start = "exec /tgi-entrypoint.sh" if with_script else "ldconfig 2>/dev/null; exec text-generation-launcher"
    export = f'export {token_variable(version)}="$(cat {TOKEN_FILE})"; ' if exported else ""
    return ("bash", "-c", export + start)
