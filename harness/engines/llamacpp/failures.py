"""Why llama-server did not start or died: its own causes among the common ones.

Every failed start ends with exit code 1, so that only its words tell the cause: those of common/arg.cpp, download.cpp
and hf-cache.cpp, src/llama*.cpp, ggml and tools/server of 0c1e57098, seen in b11549. With `--fit on` each error of the
model's file comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME
from harness.engines.failure import Cause, Failure, explain_by
from harness.units import format_bytes

_LESS_CACHE = (
    "Lower max_total_tokens or max_batch_size, whose product the cache is made for, or set kv_cache_dtype: q8_0, which"
    " takes about half; `engine/args: [--fit, 'on']` lets llama.cpp keep layers in main memory instead, which is slow."
)
_SMALLER_MODEL = (
    "Take a file of a smaller type (Q4_K_M, ...), spread it over more GPUs (gpus: 2), or keep layers in main memory"
    " (engine/args: [--n-gpu-layers, '20']), which is slow."
)
_LESS_AT_ONCE = "Set engine/args: [--ubatch-size, '256'], half of llama.cpp's own, or lower max_batch_size."
_FETCH_AGAIN = "Take the file away and let it be fetched again; compare its size with the Hub's."

CAUSES: tuple[Cause, ...] = (
    *RUNTIME,
    # the command line
    Cause(
        "no-gpu-found",
        "machine",
        r"invalid device: (?:CUDA|ROCm|Vulkan|MUSA)(\d+)",
        "llama.cpp sees no usable GPU, or fewer than the entry's `gpus`",
        "Check the GPU on the host and the entry's `gpus` (`harness doctor` tells what is missing), or set `variant:"
        " cpu` to serve without one.",
        3,
    ),
    Cause(
        "unknown-argument",
        "entry",
        r"error: invalid argument: (\S+)",
        lambda match: f"this build of llama.cpp does not know the argument {match[1]}",
        "Take it out of the entry's `args`, or take the engine version that has it.",
        2,
    ),
    Cause(
        "invalid-value",
        "entry",
        r'error while handling (argument|environment variable) "([^"]+)": (?:error: )?([^\n]*)',
        lambda match: f"{match[2]} has a value that llama.cpp refuses: {_plainly(match[3])}",
        "Correct it in the entry; `llama-server --help` lists what it may be.",
        2,
    ),
    # the model's file
    Cause(
        "no-such-file",
        "entry",
        r"failed to open GGUF file '([^'\n]*)' \(([^)\n]*)\)",
        lambda match: f"the model's file cannot be opened: {match[1] or 'none was found'} ({match[2]})",
        "Check the entry's `repo` and `file`.",
        2,
    ),
    Cause(
        "not-gguf",
        "entry",
        r"invalid magic characters: '[^\n]*expected 'GGUF'|failed to read magic",
        "the model's file is not a GGUF file",
        "Name a .gguf file; convert_hf_to_gguf.py of llama.cpp makes one of a safetensors repo.",
        2,
    ),
    Cause(
        "broken-file",
        "download",
        r"model is corrupted or incomplete|tensor '[^'\n]*' data is not within the file bounds"
        r"|failed to read (?:key-value pairs|tensor (?:info|data))",
        "the model's file is cut off or damaged",
        _FETCH_AGAIN,
    ),
    Cause(
        "missing-part",
        "entry",
        r"invalid split file|failed to load GGUF split from ([^\n]*)",
        "a part of a model in several files is missing",
        "Name the first part (...-00001-of-0000N.gguf), and keep all parts in one folder.",
        2,
    ),
    Cause(
        "unsupported-model",
        "entry",
        r"unknown model architecture: '([^']*)'|unknown pre-tokenizer type: '([^']*)'",
        lambda match: f"this build of llama.cpp cannot serve this kind of model ({match[1] or match[2]})",
        "Take a newer engine version, or another model.",
        2,
    ),
    *HUB,
    Cause(
        "no-hub-token",
        "machine",
        r"GET failed \(40[13]\)|Download '[^'\n]*' failed with status code: 40[13]",
        "the Hub refuses this model without an accepted token, or knows no such model",
        "Check the entry's `repo`; for a gated one accept its licence on the Hub and set HF_TOKEN to a token of that"
        " account.",
        3,
    ),
    Cause(
        "no-such-repo",
        "entry",
        r"GET failed \(404\)",
        "the Hub knows no such model, or it is private",
        "Check the entry's `repo`; for a private one set HF_TOKEN.",
        2,
    ),
    Cause(
        "no-such-hub-file",
        "entry",
        r"file '([^'\n]*)' not found in repository|Download '([^'\n]*)' failed with status code: 404",
        lambda match: f"the repo holds no file {(match[1] or match[2]).rpartition('/')[2]} (in this revision)",
        "Check the entry's `file` and `revision` against the list of files on the Hub.",
        2,
    ),
    Cause(
        "no-gguf",
        "entry",
        r"no GGUF files found in repository (\S+)",
        lambda match: f"{match[1]} holds no GGUF file",
        "Take a repo that holds them (most are called ...-GGUF), or convert the model with convert_hf_to_gguf.py.",
        2,
    ),
    *OFFLINE,
    Cause(
        "not-in-cache",
        "machine",
        r"required file is not available in cache \(offline mode\)",
        "the model is not in the cache and the Hub is not asked",
        "Take --offline away for the first start, or put the file there and name it as `repo`.",
        3,
    ),
    Cause(
        "no-hub",
        "machine",
        r"Download '[^'\n]*' failed with status code: (?:-1|5\d\d)|HTTPLIB failed: ([^\n]*)"
        r"|failed to resolve commit for|download failed after \d+ attempts",
        "the Hugging Face Hub cannot be reached",
        "Check the network and the proxy (HTTPS_PROXY), or serve a file of this host.",
        3,
        worth_a_retry=True,
    ),
    # settings that exclude each other
    Cause(
        "cache-type-needs-flash",
        "entry",
        r"quantized V cache requires flash_attn|V cache quantization requires flash_attn",
        "a quantized KV cache needs flash attention, which is switched off",
        "Take --flash-attn out of the entry's `args`, or kv_cache_dtype.",
        2,
    ),
    Cause(
        "too-many-slots",
        "entry",
        r"n_seq_max must be <= (\d+)",
        lambda match: f"this build of llama.cpp runs at most {match[1]} requests at once",
        lambda match: f"Set max_batch_size to at most {match[1]}.",
        2,
    ),
    # memory: the consequence tells what it was for, the line before it how much
    Cause(
        "cache-memory",
        "memory",
        r"failed to allocate buffer for (?:kv|rs) cache",
        "the KV cache does not fit into memory",
        _LESS_CACHE,
    ),
    Cause(
        "compute-memory",
        "memory",
        r"failed to allocate compute(?: \w+)? buffers",
        "the buffers for one step do not fit into memory beside weights and KV cache",
        _LESS_AT_ONCE,
    ),
    Cause(
        "weights-memory",
        "memory",
        r"unable to allocate (\S+) buffer",
        "the weights do not fit into memory",
        _SMALLER_MODEL,
    ),
    Cause(
        "gpu-memory",
        "memory",
        r"(?:CUDA|ROCm|HIP|MUSA) error: out of memory|cudaMalloc failed: out of memory|ErrorOutOfDeviceMemory"
        r"|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU ran out of memory",
        _LESS_CACHE,
    ),
    Cause(
        "main-memory",
        "memory",
        r"insufficient memory \(attempted to allocate|std::bad_alloc",
        "main memory ran out",
        _LESS_CACHE,
    ),
    Cause(
        "port-taken",
        "machine",
        r"couldn't bind HTTP server socket, hostname: (\S+), port: (\d+)",
        lambda match: f"port {match[2]} on {match[1]} is taken, or not an address of this machine",
        "Stop what listens there (`ss -ltnp` shows it), or give the model another `port:`.",
        3,
    ),
    *PORT,
    Cause(
        "chat-template",
        "entry",
        r"chat template parsing error: ([^\n]*)|the supplied chat template is not supported",
        "the model's chat template cannot be read",
        "Set engine/args: [--chat-template, chatml], or another of llama.cpp's own.",
        2,
    ),
    # consequences, when no cause before them was seen
    Cause(
        "gpu-error",
        "crash",
        r"(?:CUDA|ROCm|MUSA) error: ([^\n]+)",
        lambda match: f"the GPU's library failed: {match[1]}",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "assertion",
        "crash",
        r"GGML_ASSERT\(([^\n]*)\) failed",
        lambda match: f"llama.cpp gave up on a check of its own: {match[1]}",
        "See the last lines of its log; a newer engine version may have it fixed.",
        worth_a_retry=True,
    ),
    Cause(
        "not-loaded",
        "crash",
        r"exiting due to model loading error|error loading model: ([^\n]*)",
        "the model could not be loaded",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "no-server",
        "crash",
        r"exiting due to HTTP server error|failed to initialize HTTP server",
        "its HTTP server could not start",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
)


def explain(
    lines: Sequence[str], exit_code: int | None = None, *, memory_limit_hit: bool = False, serving: bool = False
) -> Failure:
    """The named cause of a failure. memory_limit_hit: the container's own memory limit ended it. serving: it had been
    ready.
    """
    return explain_by(CAUSES, lines, exit_code, memory_limit_hit=memory_limit_hit, serving=serving, sharpen=_sharpened)


def _sharpened(cause: Cause, text: str, serving: bool) -> Cause:
    if cause.kind != "memory":
        return cause
    if serving and cause.name == "gpu-memory":
        return replace(
            cause,
            name="gpu-memory-under-load",
            advice="It holds at start but not under load: lower max_batch_size or max_batch_prefill_tokens, or leave"
            " more memory free.",
        )
    return replace(cause, found=f"{cause.found}{_wanted(text)}")


def _wanted(text: str) -> str:
    """`: 12.3 GiB wanted`, from the last allocation that failed."""
    sizes = [int(match[1]) for match in re.finditer(r"failed to allocate(?: \S+)? buffer of size (\d+)", text)]
    sizes += [
        int(float(match[1]) * 2**20) for match in re.finditer(r"allocating ([\d.]+) MiB on device", text) if not sizes
    ]
    return f": {format_bytes(sizes[-1])} wanted" if sizes else ""


def _plainly(reason: str) -> str:
    """`stoi` is all that a number that is none is told by."""
    return "no number" if reason.strip() in ("stoi", "stof", "stol", "stoul") else reason.strip()
