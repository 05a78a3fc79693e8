"""vLLM's options by release, and which of them an entry sets: arguments of `vllm serve`.

From the parsers and configuration classes of the wheels that flags.txt names.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
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
from harness.errors import UsageError

NEWEST: Version = (0, 32, 0)
DRAIN = 90  # seconds that open requests get after SIGTERM; vLLM's own default cuts them off

FLAGS = read_flags(
    files(__package__).joinpath("flags.txt").read_text(encoding="utf-8"),
    "vLLM",
    {
        "--max-num-queued-reqs": "Leave max_concurrent_requests out and bound the queue in front of it: older releases"
        " queue without end.",
        "--disable-log-requests": "Leave it out: requests are logged only with --enable-log-requests.",
        "--swap-space": "Leave it out: nothing is swapped any more.",
        "--rope-scaling": "Write --hf-overrides with rope_parameters instead.",
        "--cuda-graph-sizes": "Write --cudagraph-capture-sizes instead.",
        "--guided-decoding-backend": "Write --structured-outputs-config instead.",
        "--shutdown-timeout": "Leave it out: older releases cut open streams off when they end.",
    },
    flexible=True,
)

LIMIT_NAMES: Mapping[str, str] = {
    "max_total_tokens": "--max-model-len",
    "max_batch_prefill_tokens": "--max-num-batched-tokens",
    "max_batch_size": "--max-num-seqs",
    "max_concurrent_requests": "--max-num-queued-reqs",
    "cuda_memory_fraction": "--gpu-memory-utilization",
}
_LACKING = {
    "max_input_tokens": "It bounds prompt and answer together: set max_total_tokens.",
    "max_batch_total_tokens": "It sizes its KV cache itself, from cuda_memory_fraction; `args:"
    " [--num-gpu-blocks-override, N]` sets it in blocks, usually of 16 tokens, one of which no request gets.",
}

# First and last of the releases that were read which have the word; the catalogue's name of what it stores.
_QUANTIZE: Quantizations = {
    "awq": (EVER, None, "awq"),
    "awq_marlin": (EVER, None, "awq"),
    "gptq": (EVER, None, "gptq"),
    "gptq_marlin": (EVER, None, "gptq"),
    "compressed-tensors": (EVER, None, "compressed-tensors"),
    "fp8": (EVER, None, "fp8"),
    "fp8_per_tensor": ((0, 19, 0), None, "fp8"),
    "fp8_per_block": ((0, 19, 0), None, "fp8"),
    "fp8_per_channel": ((0, 24, 0), None, "fp8"),
    "int8_per_channel_weight_only": ((0, 19, 0), None, "fp8"),
    "modelopt": (EVER, None, "fp8"),
    "mxfp4": (EVER, None, "mxfp4"),
    "bitsandbytes": (EVER, (0, 27, 0), "bitsandbytes-nf4"),
}
# Found in the checkpoint's config.json with the fastest kernel for it; naming the method would force a slow one
# (`override_quantization_method` in vllm/model_executor/layers/quantization).
_OF_THE_CHECKPOINT = ("awq", "gptq")
_KV_CACHE: Mapping[str, Version] = {
    "fp8": EVER,
    "fp8_e4m3": EVER,
    "fp8_e5m2": EVER,
    "bfloat16": (0, 11, 0),
    "float16": (0, 14, 0),
}

ACCEPTS = Accepts(
    newest=version_text(NEWEST),
    dtypes=("bfloat16", "float16", "float32"),
    quantize=tuple(sorted(_QUANTIZE)),
    kv_cache_dtypes=tuple(_KV_CACHE),
    kv_cache_aliases={"fp8_e4m3fn": "fp8_e4m3"},
    variants=("cuda", "rocm", "cpu"),
    stored_as={word: stored for word, (_, _, stored) in _QUANTIZE.items()},
)

FORGOTTEN = frozenset({"VLLM_*", "LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
"""What vLLM (vllm/envs.py) and PyTorch's groups of processes read; VLLM_PORT is not the HTTP port."""


def arguments_for(model: Model, version: Version, place: Place, *, revision: str | None = None) -> tuple[str, ...]:
    """`vllm serve`'s words for this entry and place: the model first, the entry's own last.

    Raises UsageError for what this release does not know, or vLLM does not have.
    """
    if model.file is not None:
        raise UsageError(
            "vLLM takes whole repositories, no single file",
            where=model.name,
            advice="Take `file` out; llama.cpp serves single GGUF files.",
        )
    own = {flag for flag, _ in FLAGS.given(model.engine.args)}
    asked = _asked(model, version, place, revision)
    taken = ReservedFlags(
        keys={flag: key for flag, key in _keys(model).items() if asked.get(flag) or flag == "--model"},
        places={"--host": "Write `listen`.", "--port": "Write `port`.", "--uds": "It is reached by its port."},
        secrets={
            "--api-key": "Take it out: the port is open to this host only.",
            "--hf-token": "Set HF_TOKEN in harness's own environment.",
        },
    )
    further = require_own(model.engine.args, FLAGS, version, taken, model.name)
    defaults: dict[str, Value] = {
        "--served-model-name": [model.name] if model.is_local else [model.name, model.repo],
        "--shutdown-timeout": DRAIN if FLAGS.known_in("--shutdown-timeout", version) else None,
    }
    left = {flag: value for flag, value in defaults.items() if flag not in own}
    address: dict[str, Value] = {"--host": place.host, "--port": place.port}
    return (place.model_path or model.repo, *words({**address, **left, **asked}), *further)


def _asked(model: Model, version: Version, place: Place, revision: str | None) -> dict[str, Value]:
    """What keys of the entry set."""
    return {
        "--revision": None if place.model_path else revision or model.revision,
        "--tensor-parallel-size": model.gpus if model.gpus > 1 else None,
        "--dtype": model.dtype,
        "--quantization": loaded_quantization(model, version, _QUANTIZE, _OF_THE_CHECKPOINT, "vLLM"),
        "--kv-cache-dtype": known_kv_cache(model, version, _KV_CACHE, "vLLM"),
        "--trust-remote-code": model.trust_remote_code,
        **limits_as_flags(model.limits, version, model.name),
    }


def _keys(model: Model) -> Mapping[str, str]:
    """The key of an entry that sets a flag."""
    limits = {flag: f"limits/{name}" for name, flag in LIMIT_NAMES.items()}
    return {
        "--model": "repo",
        "--revision": "revision",
        "--tensor-parallel-size": "gpus",
        "--dtype": "dtype",
        "--quantization": "quantize",
        "--kv-cache-dtype": "kv_cache_dtype",
        "--trust-remote-code": "trust_remote_code",
        **limits,
    }


def limits_as_flags(limits: Limits, version: Version, where: str | None = None) -> dict[str, str]:
    """Raises UsageError for a limit that vLLM, or this release of it, does not have."""
    flags = limit_flags(limits, LIMIT_NAMES, _LACKING, "vLLM", where)
    return {require_known(flag, FLAGS, version, where): value for flag, value in flags.items()}


def environment_for(model: Model, changes: Mapping[str, str] | None, *, container: bool) -> dict[str, str]:
    """Variables of one start. Usage statistics are sent to vLLM's makers unless they are switched off.

    In a container compiled graphs are kept beside the models, which saves minutes of the next start.
    """
    ours = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    kept = {"VLLM_CACHE_ROOT": COMPILED} if container else {}
    defaults = {**ours, **kept}
    own = {name: value for name, value in {**defaults, **model.env}.items() if value != "" or name not in defaults}
    return changed(own, changes)


COMPILED = "/root/.cache/huggingface/vllm"
"""On the volume of the models; vLLM's own place is ~/.cache/vllm (vllm/envs.py, VLLM_CACHE_ROOT)."""
