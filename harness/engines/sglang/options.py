"""SGLang's options by release, and which of them an entry sets: arguments of `python -m sglang.launch_server`.

From the argument parsers of the wheels that flags.txt names (srt/server_args.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.shapes import find_shape
from harness.catalog.version import EVER, Version, version_text
from harness.engines.arguments import (
    Quantizations,
    ReservedFlags,
    Value,
    changed,
    known_kv_cache,
    limit_flags,
    loaded_quantization,
    read_flags,
    require_known,
    require_own,
    words,
)
from harness.engines.base import Place
from harness.engines.sglang.log import BELOW_CONTEXT
from harness.errors import UsageError

NEWEST: Version = (0, 5, 23)

FLAGS = read_flags(
    files(__package__).joinpath("flags.txt").read_text(encoding="utf-8"),
    "SGLang",
    {
        "--max-queued-requests": "Leave max_concurrent_requests out and bound the queue in front of it.",
        "--cuda-graph-max-bs": "Write --cuda-graph-max-bs-decode instead.",
        "--cuda-graph-bs": "Write --cuda-graph-bs-decode instead.",
    },
)

LIMIT_NAMES: Mapping[str, str] = {
    "max_total_tokens": "--context-length",
    "max_batch_prefill_tokens": "--chunked-prefill-size",
    "max_batch_total_tokens": "--max-total-tokens",
    "max_batch_size": "--max-running-requests",
    "max_concurrent_requests": "--max-queued-requests",
    "cuda_memory_fraction": "--mem-fraction-static",
}
_LACKING = {"max_input_tokens": "It bounds prompt and answer together: set max_total_tokens."}

# First and last of the releases that were read which have the word; the catalogue's name of what it stores.
_QUANTIZE: Quantizations = {
    "awq": (EVER, None, "awq"),
    "awq_marlin": (EVER, None, "awq"),
    "gptq": (EVER, None, "gptq"),
    "gptq_marlin": (EVER, None, "gptq"),
    "marlin": (EVER, (0, 5, 3), "marlin"),
    "compressed-tensors": ((0, 5, 23), None, "compressed-tensors"),
    "fp8": (EVER, None, "fp8"),
    "w8a8_fp8": (EVER, None, "fp8"),
    "w8a8_int8": (EVER, None, "fp8"),
    "modelopt": (EVER, None, "fp8"),
    "mxfp4": ((0, 5, 3), None, "mxfp4"),
    "bitsandbytes": (EVER, None, "bitsandbytes-nf4"),
}
# Found in the checkpoint's config.json, with the fastest kernel for it.
_OF_THE_CHECKPOINT = ("awq", "gptq", "compressed-tensors")
_KV_CACHE: Mapping[str, Version] = {"fp8_e4m3": EVER, "fp8_e5m2": EVER, "bfloat16": (0, 5, 23)}

ACCEPTS = Accepts(
    newest=version_text(NEWEST),
    dtypes=("bfloat16", "float16", "float32"),
    quantize=tuple(sorted(_QUANTIZE)),
    kv_cache_dtypes=tuple(_KV_CACHE),
    kv_cache_aliases={"fp8": "fp8_e4m3", "fp8_e4m3fn": "fp8_e4m3"},
    variants=("cuda",),
    stored_as={word: stored for word, (_, _, stored) in _QUANTIZE.items()},
)

FORGOTTEN = frozenset({"SGLANG_*", "SGL_*", "LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
"""What SGLang (srt/environ.py) and PyTorch's groups of processes read."""


def arguments_for(model: Model, version: Version, place: Place, *, revision: str | None = None) -> tuple[str, ...]:
    """The launcher's words for this entry and place, the entry's own last.

    Raises UsageError for what this release does not know, or SGLang does not have.
    """
    if model.file is not None:
        raise UsageError(
            "SGLang takes whole repositories, no single file",
            where=model.name,
            advice="Take `file` out; llama.cpp serves single GGUF files.",
        )
    own = {flag for flag, _ in FLAGS.given(model.engine.args)}
    asked = _asked(model, version, place, revision)
    taken = ReservedFlags(
        keys={flag: key for flag, key in _keys().items() if asked.get(flag) or flag == "--model-path"},
        places={"--host": "Write `listen`.", "--port": "Write `port`."},
        secrets={
            "--api-key": "Take it out: the port is open to this host only.",
            "--admin-api-key": "Take it out: the port is open to this host only.",
        },
    )
    further = require_own(model.engine.args, FLAGS, version, taken, model.name)
    defaults: dict[str, Value] = {
        "--served-model-name": model.name,
        "--enable-metrics": True,  # off by default, and nothing is known of its queue without
        "--enable-cache-report": True,  # tells what of a prompt the cache answered
    }
    left = {flag: value for flag, value in defaults.items() if flag not in own}
    address: dict[str, Value] = {"--host": place.host, "--port": place.port}
    path: dict[str, Value] = {"--model-path": place.model_path or model.repo}
    return (*words({**path, **address, **left, **asked}), *further)


def _asked(model: Model, version: Version, place: Place, revision: str | None) -> dict[str, Value]:
    """What keys of the entry set."""
    return {
        "--revision": None if place.model_path else revision or model.revision,
        "--tp-size": model.gpus if model.gpus > 1 else None,
        "--dtype": model.dtype,
        "--quantization": loaded_quantization(model, version, _QUANTIZE, _OF_THE_CHECKPOINT, "SGLang"),
        "--load-format": "bitsandbytes" if model.quantize == "bitsandbytes" else None,
        "--kv-cache-dtype": known_kv_cache(model, version, _KV_CACHE, "SGLang"),
        "--trust-remote-code": model.trust_remote_code,
        **flags_of_limits(model, version),
    }


def flags_of_limits(model: Model, version: Version) -> dict[str, str]:
    """The entry's limits as flags, its context not above the one that the model was made for, where that is known."""
    shape = model.shape or find_shape(model.repo)
    context = model.context_length or (shape.context if shape is not None else None)
    return limits_as_flags(model.limits, version, model.name, context=context)


def _keys() -> Mapping[str, str]:
    """The key of an entry that sets a flag."""
    return {
        "--model-path": "repo",
        "--revision": "revision",
        "--tp-size": "gpus",
        "--dtype": "dtype",
        "--quantization": "quantize",
        "--load-format": "quantize",
        "--kv-cache-dtype": "kv_cache_dtype",
        "--trust-remote-code": "trust_remote_code",
        **{flag: f"limits/{name}" for name, flag in LIMIT_NAMES.items()},
    }


def limits_as_flags(
    limits: Limits, version: Version, where: str | None = None, *, context: int | None = None
) -> dict[str, str]:
    """The limits as SGLang's own flags. context: that the model was made for; a longer one would be refused.

    A context is two tokens more than the longest request (see facts.py). The queue's limit counts those that wait
    alone; ours counts those that run too. Raises UsageError for a limit that this release does not have.
    """
    flags = limit_flags(limits, LIMIT_NAMES, _LACKING, "SGLang", where)
    known = {require_known(flag, FLAGS, version, where): value for flag, value in flags.items()}
    if limits.max_total_tokens is not None:
        wanted = limits.max_total_tokens + BELOW_CONTEXT
        own = context if context is not None and limits.max_total_tokens <= context else wanted
        known["--context-length"] = str(min(wanted, own))
    if limits.max_concurrent_requests is not None:
        known["--max-queued-requests"] = str(max(1, limits.max_concurrent_requests - (limits.max_batch_size or 0)))
    return known


def environment_for(model: Model, changes: Mapping[str, str] | None) -> dict[str, str]:
    """Variables of one start; SGLang reports to nobody."""
    return changed(model.env, changes)
