"""Why TGI did not start or died: its own causes among the common ones.

Patterns are texts of TGI's launcher, router and server (see log.py) and of Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME
from harness.engines.failure import Cause, Failure, explain_by, memory_wanted, round_down


def _lower(template: str, group: int = 1) -> Callable[[re.Match[str]], str]:
    """`{value}`: the number of the group; `{half}`: a round number of about half of it."""

    def text(match: re.Match[str]) -> str:
        value = int(match[group])
        return template.format(value=value, half=round_down(value // 2), less=max(1, value - 1))

    return text


_LESS_MEMORY = (
    "Lower max_batch_prefill_tokens (half of it is a good next try), use fewer CUDA graphs (CUDA_GRAPHS:"
    " '1,2,4,8'), quantize the"
    " weights, or spread the model over more GPUs (gpus: 2). `harness probe` finds the largest values that hold."
)
_GPU_FULL = "the GPU ran out of memory"

CAUSES: tuple[Cause, ...] = (
    *RUNTIME,
    # the command line and the entry
    Cause(
        "unknown-argument",
        "entry",
        r"error: unexpected argument '([^']+)' found",
        lambda match: f"this version of TGI does not know the argument {match[1]}",
        "Take it out of the entry, or take the engine version that has it.",
        2,
    ),
    Cause(
        "empty-value",
        "entry",
        r"error: (?:invalid value '' for|a value is required for) '--([\w-]+)",
        lambda match: f"{_env(match[1])} is set to nothing",
        lambda match: f"Give {_env(match[1])} a value or leave it out: an empty variable is not an unset one.",
        2,
    ),
    Cause(
        "invalid-value",
        "entry",
        r"error: invalid value '([^']*)' for '--([\w-]+)[^\n]*(?:\n\s*\[possible values: ([^\]]*)\])?",
        lambda match: f"{_env(match[2])} cannot be {match[1]!r}",
        lambda match: f"Expected one of {match[3]}." if match[3] else "Expected a number as TGI's --help describes it.",
        2,
    ),
    Cause(
        "argument-twice",
        "entry",
        r"error: the argument '--([\w-]+)[^']*' cannot be used",
        lambda match: f"--{match[1]} is given more than once or beside one that excludes it",
        "Keep one of them.",
        2,
    ),
    Cause(
        "both-input-limits",
        "entry",
        r"Both `max_input_tokens` \(\d+\) and `max_input_length` \(\d+\) are set",
        "max_input_tokens and its older name max_input_length are both set",
        "Keep max_input_tokens.",
        2,
    ),
    Cause(
        "prefill-above-budget",
        "limits",
        r"`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`\. Given: (\d+) and (\d+)",
        lambda match: (
            f"the prefill budget of {int(match[1]):,} tokens is above the token budget of {int(match[2]):,} that fits"
        ),
        lambda match: f"Set max_batch_prefill_tokens to at most {match[2]}, or free memory for a larger budget.",
    ),
    Cause(
        "prefill-below-input",
        "limits",
        r"`max_batch_prefill_tokens` must be >= `max_input_tokens`\. Given: (\d+) and (\d+)",
        lambda match: (
            f"the prefill budget of {int(match[1]):,} tokens is below max_input_tokens {int(match[2]):,}, and"
            f" this model"
            " cannot prefill in pieces"
        ),
        lambda match: f"Set max_batch_prefill_tokens to {match[2]}, or max_input_tokens to {match[1]}.",
    ),
    Cause(
        "total-above-budget",
        "limits",
        r"`max_total_tokens` must be <= `max_batch_total_tokens`\. Given: (\d+) and (\d+)",
        lambda match: f"max_total_tokens {int(match[1]):,} is above the token budget of {int(match[2]):,}",
        lambda match: f"Set max_total_tokens to at most {match[2]}.",
    ),
    Cause(
        "total-above-memory",
        "memory",
        r"NotEnoughMemory\((\d+)\)|Not enough memory to handle `max_total_tokens=(\d+)`",
        lambda match: (
            f"max_total_tokens {int(match[1] or match[2]):,} is more than the GPU's memory holds for one sequence"
        ),
        lambda match: f"Lower max_total_tokens below {match[1] or match[2]}; `harness probe` finds the largest value.",
    ),
    Cause(
        "input-not-below-total",
        "entry",
        r"`max_input_tokens`\s*(?:\((\d+)\))? must be < `max_total_tokens`\s*(?:\((\d+)\))?",
        lambda match: (
            f"max_input_tokens {match[1] or ''} leaves no room for an answer in max_total_tokens {match[2] or ''}"
        ),
        "Set max_input_tokens below max_total_tokens by the length of an answer.",
        2,
    ),
    Cause(
        "shards-and-heads",
        "entry",
        r"`num_heads` must be divisible by `num_shards` \(got `num_heads`: (\d+)\s+and `num_shards`: (\d+)",
        lambda match: f"{match[1]} attention heads do not divide by {match[2]} shards",
        lambda match: f"Set gpus to one of {', '.join(str(n) for n in (1, 2, 4, 8) if int(match[1]) % n == 0)}.",
        2,
    ),
    Cause(
        "shards-and-size",
        "entry",
        r"The cho+sen size (\d+) is not compatible with sharding on (\d+) shards",
        lambda match: f"a layer of size {match[1]} does not divide by {match[2]} shards",
        "Set gpus to 1, 2 or 4.",
        2,
    ),
    Cause(
        "sharded-exl2",
        "entry",
        r"Sharding is currently not supported with `exl2`",
        "exl2 weights cannot be spread over GPUs",
        "Set gpus to 1, or take another quantization.",
        2,
    ),
    *HUB,
    Cause(
        "no-weights",
        "entry",
        r"No (?:local weights found in|\.(?:safetensors|bin) weights found for model) (\S+)",
        "the model has no weights that TGI can load",
        "Check the entry's `repo`: it must hold .safetensors or .bin files.",
        2,
    ),
    *OFFLINE,
    Cause(
        "emulator-shape",
        "entry",
        r"the emulator knows no shape of this model",
        "the emulator does not know how large this model is",
        "Give its sizes as `shape` in the entry, or serve a directory with its config.json.",
        2,
    ),
    Cause(
        "remote-code",
        "entry",
        r"requires you to execute the (?:configuration|modeling|tokenizer) file|trust_remote_code=True",
        "the model brings code of its own",
        "Read that code; if you trust it, set trust_remote_code: true.",
        2,
    ),
    Cause(
        "unsupported-model",
        "entry",
        r"Unsupported model type (\S+)|does not recognize this architecture|Could not determine model type for"
        r"|(?:sharded|quantization) is not supported for (?:this model|AutoModel)",
        "this version of TGI cannot serve this kind of model",
        "Take a newer engine version, or another model.",
        2,
    ),
    Cause(
        "no-flash-attention",
        "machine",
        r"requires Flash Attention enabled models",
        "this model needs TGI's flash attention, and the engine found no GPU that can run it",
        "Check that the GPU is there and Docker may use it (`harness doctor`), and that it is not older than compute"
        " capability 7.5.",
        3,
    ),
    Cause(
        "sliding-window",
        "entry",
        r"does not support sliding window attention[^\n]*sliding_window=(\d+)",
        lambda match: f"this kind of GPU cannot serve prompts beyond the model's sliding window of {match[1]} tokens",
        lambda match: f"Set max_input_tokens to at most {match[1]}.",
        2,
    ),
    Cause(
        "other-weights",
        "entry",
        r"weight (\S+) does not exist",
        lambda match: f"the files hold no weight {match[1]}: they are of another kind than TGI took them for",
        "Set `quantize` to how the checkpoint was made (awq, gptq, ...), or check that the repo holds the whole model.",
        2,
    ),
    Cause(
        "dtype-and-quantize",
        "entry",
        r"Only 1 can be set between `dtype` and `quantize`",
        "dtype and quantize exclude each other",
        "Keep one of them.",
        2,
    ),
    Cause(
        "fp8-cache",
        "entry",
        r"FP8 KV cache is currently only supported for",
        "this GPU or attention kernel has no fp8 KV cache",
        "Take kv_cache_dtype out.",
        2,
    ),
    Cause(
        "prefix-caching",
        "entry",
        r"Prefix caching is only supported with",
        "prefix caching is forced on for an attention kernel without it",
        "Take PREFIX_CACHING or ATTENTION out of `env`.",
        2,
    ),
    # memory
    Cause(
        "warmup-memory",
        "memory",
        r"Not enough memory to handle (\d+) prefill tokens",
        lambda match: f"not enough GPU memory to prefill {int(match[1]):,} tokens at once",
        _lower(
            "Set max_batch_prefill_tokens below {value}, for example to {half}; `harness probe` finds the"
            " largest value."
        ),
    ),
    Cause(
        "warmup-memory",
        "memory",
        r"(?:UnboundLocalError|cannot access local variable|local variable)[^\n]*'?num_tokens'?",
        "not enough GPU memory for the KV cache of one prefill batch (TGI hides it behind a Python error)",
        "Set max_batch_prefill_tokens to half of what it is; `harness probe` finds the largest value.",
    ),
    Cause(
        "no-cache-blocks",
        "memory",
        r"Not enough memory to (?:handle|allocate)[^\n]*|No available memory for the cache blocks"
        r"|num_blocks[^\n]*must be positive",
        "no GPU memory is left for the KV cache",
        _LESS_MEMORY,
    ),
    Cause(
        "gpu-memory",
        "memory",
        r"(?:CUDA|HIP|XPU) out of memory|OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
        r"|hipErrorOutOfMemory|cudaErrorMemoryAllocation",
        _GPU_FULL,
        _LESS_MEMORY,
    ),
    # the machine, as seen from the engine
    Cause(
        "metrics-port-taken",
        "machine",
        r"failed to build prometheus recorder[^\n]*Address already in use",
        "port 9000, which the router binds for a moment, is taken in this network namespace",
        "Set PROMETHEUS_PORT to a free port (TGI 3.3.0 and newer), or do not use host networking.",
        3,
    ),
    *PORT,
    Cause(
        "folder-read-only",
        "entry",
        r"(?s)No safetensors weights found for model /[^\n]*Converting.*(?:Read-only file system|ReadOnlyFilesystem)",
        "TGI would convert the directory's PyTorch weights in place, and a stack hands the directory in read-only",
        "Put .safetensors files there: `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)` of transformers"
        " writes them.",
        2,
    ),
    Cause(
        "read-only",
        "machine",
        r"Read-only file system: '?([^'\n]*)|Read-only file system",
        "the engine wrote to a place that the stack keeps read-only",
        "Add the path to `tmpfs` in compose/service.yaml, or set read_only: false there.",
        4,
    ),
    Cause(
        "no-server",
        "machine",
        r"text-generation-(server|router) not found in PATH",
        lambda match: f"the launcher finds no text-generation-{match[1]}",
        "Install it beside the launcher, or use --runtime compose.",
        3,
    ),
    Cause(
        "tokenizer",
        "entry",
        r"Unable to load tokenizer|Failed to import python tokenizer|Can't load tokenizer for",
        "the model's tokenizer cannot be loaded",
        "Check that the repo holds tokenizer.json or tokenizer_config.json, or name one in TOKENIZER_CONFIG_PATH.",
        4,
    ),
    Cause(
        "bad-argument",
        "entry",
        r'Error: ArgumentValidation\("((?:[^"\\]|\\.)*)"\)',
        lambda match: f"TGI refuses its options: {match[1]}",
        "Correct the entry.",
        2,
    ),
    # consequences, when no cause before them was seen
    Cause(
        "killed-download",
        "memory",
        r"Download process was signaled to shutdown with signal (\d+)",
        lambda match: f"the download was killed by signal {match[1]}, most likely for want of main memory",
        "Give the container or machine more memory.",
        worth_a_retry=True,
    ),
    Cause(
        "killed",
        "memory",
        r"Shard process was signaled to shutdown with signal (9|15)\b",
        lambda match: f"the model's process was killed by signal {match[1]}, most likely for want of main memory",
        "Give the container or machine more memory than the weights' size, or quantize the weights.",
        worth_a_retry=True,
    ),
    Cause(
        "crashed-shard",
        "crash",
        r"Shard process was signaled to shutdown with signal (\d+)",
        lambda match: f"the model's process crashed with signal {match[1]}",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "download",
        "download",
        r"Download encountered an error|Error: DownloadError",
        "the weights could not be downloaded",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "died-serving",
        "crash",
        r"Shard (\d+) crashed|Error: ShardFailed",
        "the model's process died while serving",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "shard-start",
        "crash",
        r"Error: ShardCannotStart|Shard \d+ failed to start",
        "the model could not be loaded",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
    Cause(
        "webserver",
        "crash",
        r"Error: WebserverFailed|Webserver Crashed",
        "TGI's router ended",
        "See the last lines of its log.",
        worth_a_retry=True,
    ),
)


def explain(
    lines: Sequence[str], engine_exit_code: int | None = None, *, memory_limit_hit: bool = False, serving: bool = False
) -> Failure:
    """The named cause of a failure. memory_limit_hit: the container's own memory limit ended it. serving: it had been
    ready.
    """
    return explain_by(
        CAUSES,
        lines,
        engine_exit_code,
        memory_limit_hit=memory_limit_hit,
        serving=serving,
        sharpen=_sharpened,
        tail=tuple(_without_options(lines)),
    )


def _without_options(lines: Sequence[str]) -> Iterator[str]:
    """Lines that are not empty, without the launcher's dump of its forty options."""
    within = False
    for line in lines:
        within = within or re.search(r"(?:^|\s)Args \{", line) is not None
        if not within and line.strip():
            yield line
        within = within and not (line.strip() == "}" or re.search(r"(?:^|\s)Args \{.*\}$", line, re.DOTALL))


def _sharpened(cause: Cause, text: str, serving: bool) -> Cause:
    """What the cause means depends on when it happened."""
    before_router = "Starting Webserver" not in text
    if cause.name in ("total-above-budget", "bad-argument", "prefill-above-budget") and cause.kind != "machine":
        exit_code = 2 if before_router else 4  # only the launcher's own check knows nothing of the GPU
        return replace(cause, exit_code=exit_code)
    if cause.name == "warmup-memory":
        return _with_total(cause, text)
    if cause.name == "gpu-memory":
        return _with_moment(replace(cause, found=_GPU_FULL + memory_wanted(text)), text, serving)
    return cause


def _with_moment(cause: Cause, text: str, serving: bool) -> Cause:
    """What helps against a full GPU: while weights load nothing but fewer weights, under load other limits."""
    if serving or (re.search(r"Shard \d+ crashed", text) and "Connected" in text):
        return replace(
            cause,
            name="gpu-memory-under-load",
            advice="Its limits hold at start but not under load: lower max_batch_prefill_tokens, or leave more memory"
            " free (CUDA_MEMORY_FRACTION: '0.9'); `harness probe` finds values that survive.",
        )
    if "Starting shard" in text and "Shard ready" not in text:
        return replace(
            cause,
            name="gpu-memory-loading",
            advice="The weights do not fit beside what else uses the GPU (`nvidia-smi` shows it): quantize them, spread"
            " them over more GPUs (gpus: 2), or take a smaller model; `harness models check` has the sum.",
        )
    return cause


def _with_total(cause: Cause, text: str) -> Cause:
    """TGI names the prefill budget alone, but the warm-up also allocates the cache of one sequence of
    max_total_tokens.
    """
    prefill = re.search(r"max_batch_prefill_tokens` to (\d+)|max_batch_prefill_tokens: Some\(\s*(\d+)", text)
    total = re.search(r"max_total_tokens: Some\(\s*(\d+)", text)  # in the dump of all options
    if total is None or prefill is None or int(total[1]) <= int(prefill[1] or prefill[2]):
        return cause
    advice = cause.advice
    if isinstance(advice, str):  # not even the cache could be allocated, and that of the sequence is the larger part
        return replace(
            cause,
            found="not enough GPU memory for the KV cache of one sequence (TGI hides it behind a Python error)",
            advice=f"Lower max_total_tokens ({total[1]}), for example to {round_down(int(total[1]) // 2)}; `harness"
            " probe` finds the largest value.",
        )

    def text_with_total(match: re.Match[str]) -> str:
        more = f"; or lower max_total_tokens ({total[1]}), whose cache must fit beside it."
        return advice(match).rstrip(".") + more

    return replace(cause, advice=text_with_total)


def _env(option: str) -> str:
    return option.upper().replace("-", "_")
