"""An entry as llama-server's command line, and which of the entry's own arguments would contradict it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.arguments import ReservedFlags, Value, changed, limit_flags, require_known, require_own, words
from harness.engines.base import Invocation, Place
from harness.engines.llamacpp import source
from harness.engines.llamacpp.flags import FLAGS, NEWEST, TITLE, VARIABLES, asks_for_one_cache, number, setting
from harness.engines.llamacpp.slots import SMALLEST_BATCH, sizes_for
from harness.errors import UsageError

_NOTHING = Invocation()

LIMIT_NAMES: Mapping[str, str] = {
    "max_total_tokens": "--ctx-size / --parallel",
    "max_batch_prefill_tokens": "--batch-size",
    "max_batch_total_tokens": "--ctx-size",
    "max_batch_size": "--parallel",
}
"""What each limit is called; `--ctx-size` is the cache of all slots together."""

_LACKING: Mapping[str, str] = {
    "max_input_tokens": "A prompt may take all of a slot but one token: set max_total_tokens.",
    "max_concurrent_requests": "It lets requests wait without limit; max_batch_size is how many run at once.",
    "cuda_memory_fraction": "Size the cache itself with max_total_tokens and max_batch_size, or leave memory free with"
    " engine/args [--fit-target, MIB].",
}
_KEYS_OF_LIMITS: Mapping[str, str] = {
    "--ctx-size": "limits/max_total_tokens",
    "--parallel": "limits/max_batch_size",
    "--batch-size": "limits/max_batch_prefill_tokens",
    "--kv-unified-per-slot": "limits/max_total_tokens",
}
FLAGS_OF_LIMIT: Mapping[str, tuple[str, ...]] = {
    "max_total_tokens": ("--ctx-size", "--kv-unified-per-slot"),
    "max_batch_total_tokens": ("--ctx-size",),
    "max_batch_size": ("--parallel",),
    "max_batch_prefill_tokens": ("--batch-size",),
}
"""Which arguments of an entry's own set a limit of ours."""

# common/arg.cpp, kv_cache_types
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_ALONE = "Take it out: a container or process has its own address, and harness asks it there."
_OPEN = "Take it out: the port is open to this host only, and harness asks it without a key."

ACCEPTS = Accepts(
    newest=NEWEST,
    kv_cache_dtypes=CACHE_TYPES,
    variants=("cuda", "cuda13", "rocm", "vulkan", "cpu"),
    twins={
        "LLAMA_ARG_MODEL": ("repo",),
        "LLAMA_ARG_MODEL_URL": ("repo",),
        "LLAMA_ARG_HF_REPO": ("repo",),
        "LLAMA_ARG_HF_FILE": ("file",),
        "LLAMA_ARG_CACHE_TYPE_K": ("kv_cache_dtype",),
        "LLAMA_ARG_CACHE_TYPE_V": ("kv_cache_dtype",),
        "LLAMA_ARG_CTX_SIZE": ("limits", "max_total_tokens"),
        "LLAMA_ARG_N_PARALLEL": ("limits", "max_batch_size"),
        "LLAMA_ARG_BATCH": ("limits", "max_batch_prefill_tokens"),
    },
    limit_order=(("max_total_tokens", "max_batch_total_tokens", False),),
)


def forgotten_variables() -> frozenset[str]:
    """Those of the user's own environment that count as arguments, whichever build knows them."""
    return frozenset(name for name in os.environ if name.startswith("LLAMA_ARG_")) | {"LLAMA_API_KEY"}


def invocation(
    model: Model,
    version: Version,
    place: Place,
    *,
    revision: str | None = None,
    changes: Mapping[str, str] | None = None,
) -> Invocation:
    """The command line of llama-server for an entry, its own arguments last. Raises UsageError."""
    environment = changed(model.env, changes)
    own = Invocation(model.engine.args, environment)
    _require_no_type(model)
    options: dict[str, Value] = {
        "--host": place.host or None,
        "--port": place.port or None,
        **source.options_for(model, place, revision, environment),
        "--alias": model.name,
        "--metrics": True,
        _no_page(version): True,
        **_devices(model, place, own),
        **flags_for(model.limits, version, own=own, where=model.name),
        "--cache-type-k": model.kv_cache_dtype,
        "--cache-type-v": model.kv_cache_dtype,
    }
    taken = ReservedFlags(
        keys=_keys_taken(model), places=_places_taken(), secrets={"--api-key": _OPEN, "--hf-token": _TOKEN}
    )
    given = require_own(own.args, FLAGS, version, taken, model.name)
    _require_no_variable(options, environment, model.name)
    if place.container:
        environment = {"LLAMA_CACHE": source.CONTAINER_CACHE, **environment}
    return Invocation((*words(options), *given), environment)


def flags_for(
    limits: Limits, version: Version, *, own: Invocation = _NOTHING, where: str | None = None
) -> dict[str, str]:
    """The limits as options. own: what the entry says besides, of which some changes what the limits mean.

    Raises UsageError for a limit that llama.cpp does not have, and for limits that cannot hold together.
    """
    limit_flags(limits, LIMIT_NAMES, _LACKING, TITLE, where)
    slots = number(own, "--parallel")
    sizes = sizes_for(limits, parallel=slots, unified=asks_for_one_cache(own), where=where)
    if sizes.cap is not None:
        require_known("--kv-unified-per-slot", FLAGS, version, where)
    batch = limits.max_batch_prefill_tokens
    _require_room_in_batch(batch, sizes.parallel or slots or 1, where)
    # A cache of a size that was asked for is to be had, or the start fails: by itself llama.cpp would keep layers in
    # main memory instead.
    pinned = sizes.context is not None and setting(own, "--fit") is None
    wanted = {
        "--ctx-size": sizes.context,
        "--parallel": sizes.parallel if limits.max_batch_size or slots is None else None,
        "--kv-unified-per-slot": sizes.cap,
        "--fit": "off" if pinned else None,
        "--batch-size": batch,
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}


_TOKEN = "Set HF_TOKEN in harness's own environment instead."


def _no_page(version: Version) -> str:
    """Leaves out the page for people, which a service does not need."""
    return "--no-ui" if FLAGS.known_in("--no-ui", version) else "--no-webui"


def _require_no_type(model: Model) -> None:
    for key in ("dtype", "quantize"):
        if getattr(model, key) is not None:
            raise UsageError(
                f"llama.cpp has no setting such as {key}: a GGUF file holds its weights in one type",
                where=model.name,
                advice="Take it out, and name the file of the type that you want: `file: NAME.gguf`.",
            )


def _devices(model: Model, place: Place, own: Invocation) -> dict[str, Value]:
    """As many GPUs as the entry says, and no start on the CPU where there is none.

    In a container its devices are named, because llama.cpp goes on without a GPU when it finds none. As a process of
    this host it may be a build of any kind: there the layers are kept on the first N devices.
    """
    variant = model.engine.variant
    if variant == "cpu" or any(setting(own, flag) for flag in ("--device", "--split-mode", "--tensor-split")):
        return {}
    if place.container:
        kind = _DEVICES.get(variant)
        return {"--device": ",".join(f"{kind}{number}" for number in range(model.gpus))} if kind else {}
    return {"--split-mode": "none"} if model.gpus == 1 else {"--tensor-split": ",".join("1" * model.gpus)}


# ggml/include/ggml-cuda.h, GGML_CUDA_NAME, and ggml/src/ggml-vulkan/ggml-vulkan.cpp
_DEVICES: Mapping[str, str] = {"cuda": "CUDA", "cuda13": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan"}


def _require_room_in_batch(batch: int | None, slots: int, where: str | None) -> None:
    """A step holds a token of each running request; with less room llama-server aborts when it starts."""
    least = max(slots, SMALLEST_BATCH)
    if batch is not None and batch < least:
        raise UsageError(
            f"max_batch_prefill_tokens {batch} is less than the {least} tokens that one step must hold",
            where=where,
            advice=f"Set it to at least {least}: a step also carries one token of each running request.",
        )


def _keys_taken(model: Model) -> dict[str, str]:
    limits = model.limits
    taken = {flag: key for flag, key in _KEYS_OF_LIMITS.items() if getattr(limits, key.partition("/")[2]) is not None}
    if limits.max_batch_total_tokens is not None:
        taken["--ctx-size"] = "limits/max_batch_total_tokens"
    if model.kv_cache_dtype is not None:
        taken |= {"--cache-type-k": "kv_cache_dtype", "--cache-type-v": "kv_cache_dtype"}
    taken |= {flag: "repo" for flag in ("--model", "--model-url", "--hf-repo", "--docker-repo")}
    return taken | {"--hf-file": "file"}


def _places_taken() -> dict[str, str]:
    own = {flag: _ALONE for flag in ("--host", "--port", "--reuse-port", "--api-prefix")}
    served = {"--ssl-key-file": _OPEN, "--ssl-cert-file": _OPEN, "--api-key-file": _OPEN}
    always = "Take it out: harness sets it in every start."
    return {**own, **served, **{flag: always for flag in ("--alias", "--metrics", "--no-ui", "--no-webui")}}


def _require_no_variable(options: Mapping[str, Value], environment: Mapping[str, str], where: str) -> None:
    """An argument overrules its variable, which would then do nothing."""
    for flag, value in options.items():
        variable = VARIABLES.get(flag)
        if value not in (None, False) and variable in environment:
            raise UsageError(
                f"env/{variable} would be overruled by {flag} {value}",
                where=where,
                advice="Take it out, or the key of the entry that sets the other.",
            )
