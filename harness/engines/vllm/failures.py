"""Why vLLM did not start or died: its own causes among the common ones.

Patterns are texts of 0.10 to 0.32 and of Python's argparse. The front end ends with `Engine core initialization failed.
See root cause above`; what is above is of the engine's process, whose lines may come later, so that consequences come
last. Texts of configuration classes come wrapped by pydantic; they are looked for unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME
from harness.engines.failure import Cause, Failure, explain_by, memory_wanted

_GPU_FULL = "the GPU ran out of memory"
_LESS_ACTIVATIONS = (
    "Lower max_batch_prefill_tokens or max_batch_size, whose activations are taken from the same memory, or"
    " cuda_memory_fraction, so that more is left beside the KV cache."
)
_FEWER_WEIGHTS = (
    "The weights do not fit beside what else uses the GPU (`nvidia-smi` shows it): quantize them, spread them over more"
    " GPUs (gpus: 2), or take a smaller model; `harness models check` has the sum."
)
_LAST_LINES = "See the last lines of its log."

_ENTRY: tuple[Cause, ...] = (
    Cause(
        "unknown-argument",
        "entry",
        r"error: unrecognized arguments: ([^\n]+)",
        lambda match: f"this version of vLLM does not know the argument {match[1].strip()}",
        "Take it out of the entry's engine/args, or take the engine version that has it.",
        2,
    ),
    Cause(
        "invalid-value",
        "entry",
        r"error: argument (\S+?)(?:/\S+)?: (invalid [^\n]+|expected [^\n]+|not allowed [^\n]+)",
        lambda match: f"vLLM does not take the value of {match[1]}: {match[2].strip()[:120]}",
        "Correct the entry.",
        2,
    ),
    Cause(
        "model-not-first",
        "entry",
        r"'?model'? should be provided as the first positional argument",
        "vLLM found no model before its arguments",
        "Take arguments with several values out of the front of engine/args.",
        2,
    ),
    Cause(
        "total-above-context",
        "limits",
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len"
        r" \((?:max_position_embeddings=|[a-z_]+=)?(\d+)?",
        lambda match: f"max_total_tokens {int(match[1]):,} is above what the model was made for",
        lambda match: (
            f"Set max_total_tokens to at most {match[2] or 'the model' + chr(39) + 's context_length'}, or"
            " VLLM_ALLOW_LONG_MAX_MODEL_LEN: '1' in `env` if the model's positions can be stretched."
        ),
        2,
    ),
    Cause(
        "prefill-below-total",
        "limits",
        r"max_num_batched_tokens \((\d+)\) is smaller than max_model_len \((\d+)\)",
        lambda match: (
            f"max_batch_prefill_tokens {int(match[1]):,} is below max_total_tokens {int(match[2]):,}, and prompts are"
            " not read in pieces"
        ),
        lambda match: f"Set max_batch_prefill_tokens to {match[2]}, or max_total_tokens to {match[1]}.",
        2,
    ),
    Cause(
        "prefill-below-rows",
        "limits",
        r"max_num_batched_tokens \((\d+)\) must be greater than or equal to max_num_seqs \((\d+)\)",
        lambda match: f"max_batch_prefill_tokens {match[1]} is below the {match[2]} requests that generate at once",
        lambda match: f"Set max_batch_prefill_tokens to at least {match[2]}, or max_batch_size to {match[1]}.",
        2,
    ),
    Cause(
        "active-above-rows",
        "limits",
        r"max_num_active_seqs \((\d+)\) cannot be greater than max_num_seqs \((\d+)\)",
        lambda match: f"--max-num-active-seqs {match[1]} is above the {match[2]} requests that generate at once",
        lambda match: f"Set it to at most {match[2]}, or max_batch_size to {match[1]}.",
        2,
    ),
    Cause(
        "threshold-above-total",
        "limits",
        r"long_prefill_token_threshold \((\d+)\) cannot be greater than the max_model_len \((\d+)\)",
        lambda match: f"--long-prefill-token-threshold {match[1]} is above max_total_tokens {match[2]}",
        lambda match: f"Set it to at most {match[2]}.",
        2,
    ),
    Cause(
        "shards-and-heads",
        "entry",
        r"Total number of attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)",
        lambda match: f"{match[1]} attention heads do not divide by {match[2]} GPUs",
        lambda match: f"Set gpus to one of {', '.join(str(n) for n in (1, 2, 4, 8) if int(match[1]) % n == 0)}.",
        2,
    ),
    Cause(
        "too-few-gpus",
        "machine",
        r"World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)",
        lambda match: f"gpus asks for {match[1]} GPUs, vLLM sees {match[2]}",
        lambda match: f"Set gpus to at most {match[2]}, or free more GPUs (`nvidia-smi -L`).",
        3,
    ),
    Cause(
        "quantization-mismatch",
        "entry",
        r"specified in the model config \(([^)]*)\) does not match the quantization method specified in the"
        r" `quantization` argument \(([^)]*)\)",
        lambda match: f"the checkpoint is made with {match[1]}, the entry says quantize: {match[2]}",
        "Take `quantize` out: vLLM finds the method in the checkpoint.",
        2,
    ),
    Cause(
        "unknown-quantization",
        "entry",
        r"Unknown quantization method: (\S+?)\. Must be one of",
        lambda match: f"this version of vLLM has no quantization {match[1]}",
        "Take another method, or a checkpoint that is quantized already; bitsandbytes and GGUF are plugins by now.",
        2,
    ),
    Cause(
        "deprecated-quantization",
        "entry",
        r"The quantization method (\S+) is deprecated and will be removed",
        lambda match: f"this version of vLLM no longer takes quantize: {match[1].replace('%s', 'as it is')}",
        "Take another method, or add --allow-deprecated-quantization to engine/args.",
        2,
    ),
    Cause(
        "gpu-too-old",
        "machine",
        r"The quantization method (\S+) is not supported for the current GPU\. Minimum capability: (\d+)\."
        r" Current capability: (\d+)",
        lambda match: (
            f"quantization {match[1]} needs compute capability {_point(match[2])}, the GPU has {_point(match[3])}"
        ),
        "Take `quantize` out or another method, or a newer GPU.",
        3,
    ),
    Cause(
        "dtype-and-quantize",
        "entry",
        r"torch\.(\S+) is not supported for quantization method (\S+?)\. Supported dtypes: \[(?:torch\.)?([^\],]*)",
        lambda match: f"quantization {match[2]} does not work with dtype {match[1]}",
        lambda match: f"Set dtype: {match[3].removeprefix('torch.')}.",
        2,
    ),
    Cause(
        "no-bfloat16",
        "entry",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (.+?) GPU has",
        lambda match: f"{match[1]} has no bfloat16, which came with compute capability 8.0",
        "Set dtype: float16.",
        2,
    ),
    Cause(
        "tools-without-parser",
        "entry",
        r"--enable-auto-tool-choice requires --tool-call-parser",
        "--enable-auto-tool-choice is given without the parser that reads the model's tool calls",
        "Add --tool-call-parser NAME to engine/args, for example hermes or llama3_json.",
        2,
    ),
    Cause(
        "unknown-parser",
        "entry",
        r"invalid (tool call|reasoning) parser: (\S+)",
        lambda match: f"this version of vLLM has no {match[1]} parser {match[2].rstrip(chr(39))}",
        "`vllm serve --help=Frontend` lists those that there are.",
        2,
    ),
)

_MODEL: tuple[Cause, ...] = (
    Cause(
        "remote-code",
        "entry",
        r"consider setting `trust_remote_code=True`|requires you to execute the (?:configuration|modeling|tokenizer)"
        r" file|contains custom code which must be executed",
        "the model brings code of its own, or is newer than this version of vLLM",
        "Read that code; if you trust it, set trust_remote_code: true. Else take a newer engine version.",
        2,
    ),
    Cause(
        "no-weights",
        "entry",
        r"Cannot find any model weights with `([^`]*)`",
        "the model has no weights that vLLM can load",
        "Check the entry's `repo`: it must hold .safetensors or .bin files.",
        2,
    ),
    Cause(
        "unsupported-model",
        "entry",
        r"Model architectures \[([^\]]*)\] (?:are not supported for now|failed to be inspected)"
        r"|Cannot find model module\. '([^']+)'|does not recognize this architecture",
        lambda match: f"this version of vLLM cannot serve this kind of model{_named(match[1] or match[2])}",
        "Take a newer engine version, or another model.",
        2,
    ),
    Cause(
        "no-such-repo",
        "entry",
        r"Invalid repository ID or local directory specified: '([^']*)'",
        lambda match: f"there is no model {match[1]}, neither on the Hub nor as a directory with a config.json",
        "Check the entry's `repo`; for a private one set HF_TOKEN.",
        2,
    ),
)

_MEMORY: tuple[Cause, ...] = (
    Cause(
        "gpu-in-use",
        "memory",
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization"
        r" \(([\d.]+)",
        lambda match: (
            f"{match[1]} of the GPU's {match[2]} GiB are free, cuda_memory_fraction {match[3]} asks for more: something"
            " else uses it"
        ),
        lambda match: (
            "End what else uses the GPU (`nvidia-smi` shows it), or set cuda_memory_fraction to at most"
            f" {_share(match)}."
        ),
    ),
    Cause(
        "total-above-memory",
        "memory",
        r"To serve at least one request with the models?'s max seq len \((\d+)\), \(?([\d.]+) GiB KV cache is needed,"
        r" which is larger than the available KV cache memory \(([\d.]+) GiB\)"
        r"(?:[^\n]*?estimated maximum model length is (\d+))?",
        lambda match: (
            f"a request of {int(match[1]):,} tokens needs {match[2]} GiB of KV cache, {match[3]} GiB are left for it"
        ),
        lambda match: (
            (f"Set max_total_tokens to at most {match[4]}" if match[4] else f"Lower max_total_tokens below {match[1]}")
            + ", or raise cuda_memory_fraction; kv_cache_dtype: fp8 halves what is needed."
        ),
    ),
    Cause(
        "no-cache-blocks",
        "memory",
        r"No available memory for the cache blocks|not enough GPU memory available to serve even a single token",
        "no GPU memory is left for the KV cache",
        "Raise cuda_memory_fraction, lower max_batch_prefill_tokens or max_batch_size, quantize the weights, or spread"
        " the model over more GPUs (gpus: 2).",
    ),
    Cause(
        "gpu-memory-loading",
        "memory",
        r"Failed to load model - not enough GPU memory",
        "the GPU ran out of memory while the weights were loaded",
        _FEWER_WEIGHTS,
    ),
    Cause(
        "warmup-memory",
        "memory",
        r"CUDA out of memory occurred when warming up sampler with (\d+) dummy requests",
        lambda match: f"not enough GPU memory to sample for {match[1]} requests at once",
        lambda match: (
            f"Set max_batch_size below {match[1]}, for example to {int(match[1]) // 2}, or lower cuda_memory_fraction."
        ),
    ),
    Cause(
        "memory-moved",
        "memory",
        r"Error in memory profiling\. Initial free memory ([\d.]+) GiB, current free memory ([\d.]+) GiB",
        lambda match: f"another process freed GPU memory while vLLM measured it ({match[1]} GiB free, then {match[2]})",
        "Start it again when nothing else starts or ends on this GPU.",
        worth_a_retry=True,
    ),
    Cause(
        "gpu-memory",
        "memory",
        r"(?:CUDA|HIP|XPU) out of memory|OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
        r"|hipErrorOutOfMemory|cudaErrorMemoryAllocation",
        _GPU_FULL,
        _LESS_ACTIVATIONS,
    ),
)

_CONSEQUENCES: tuple[Cause, ...] = (
    Cause(
        "port-variable",
        "entry",
        r"VLLM_PORT '?([^'\n]*)'? (?:appears to be|must be)",
        "VLLM_PORT holds an address, as Kubernetes sets it for a Service called vllm",
        "Rename that Service, or take VLLM_PORT out of the environment; it is not the HTTP port.",
        2,
    ),
    Cause(
        "no-cuda-device",
        "machine",
        r"Failed to infer device type",
        "vLLM sees no usable GPU",
        "Check `nvidia-smi` on the host and the entry's `engine/variant`; `harness doctor` tells what is missing.",
        3,
    ),
    Cause(
        "shared-memory",
        "machine",
        r"Bus error|/dev/shm[^\n]*(?:No space left|too small)",
        "shared memory is too small",
        "Give the container more of it (a rendered stack has enough), or share the host's (`ipc: host`).",
        3,
    ),
    Cause(
        "killed",
        "memory",
        r"died unexpectedly \(exit code: -9\)|exit code:? -9\b|proc\(s\): \{[^}]*: -9",
        "one of the engine's processes was killed (signal 9), most likely for want of main memory",
        "Give it more main memory than the weights' size; `dmesg` has the kernel's word.",
        worth_a_retry=True,
    ),
    Cause(
        "died-serving",
        "crash",
        r"EngineCore encountered a fatal error|EngineDeadError|died unexpectedly \(exit code",
        "the engine's process died while serving",
        _LAST_LINES,
        worth_a_retry=True,
    ),
    Cause(
        "engine-start",
        "crash",
        r"Engine core initialization failed|EngineCore failed to start|WorkerProc (?:failed to start|initialization"
        r" failed)",
        "the model could not be loaded",
        _LAST_LINES,
        worth_a_retry=True,
    ),
)

CAUSES = (*RUNTIME, *_ENTRY, *HUB, *OFFLINE, *_MODEL, *_MEMORY, *PORT, *_CONSEQUENCES)


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
    )


def _sharpened(cause: Cause, text: str, serving: bool) -> Cause:
    """What helps against a full GPU depends on when it was full."""
    if cause.name != "gpu-memory":
        return cause
    cause = replace(cause, found=_GPU_FULL + memory_wanted(text))
    if serving or "Application startup complete" in text:
        return replace(
            cause,
            name="gpu-memory-under-load",
            advice="Its limits hold at start but not under load: lower cuda_memory_fraction (0.9) or"
            " max_batch_prefill_tokens; `harness probe` finds values that survive.",
        )
    if re.search(r"Model loading took", text) is None:
        return replace(cause, name="gpu-memory-loading", advice=_FEWER_WEIGHTS)
    return replace(cause, name="warmup-memory")


def _named(architecture: str | None) -> str:
    return f" ({architecture.strip(chr(39))})" if architecture else ""


def _point(capability: str) -> str:
    """`75` -> `7.5`."""
    return f"{int(capability) // 10}.{int(capability) % 10}"


def _share(match: re.Match[str]) -> str:
    """The largest share of the GPU that is free, two digits, rounded down."""
    return f"{int(100 * float(match[1]) / float(match[2])) / 100:g}"
