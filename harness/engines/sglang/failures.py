"""Why SGLang did not start or died: its own causes among the common ones.

Patterns are texts of 0.4.6 to 0.5.23 and of Python's argparse. A scheduler that fails has its parent kill the whole
tree, itself included: exit code 137 is then no want of main memory, and the cause is above.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME
from harness.engines.failure import Cause, Failure, explain_by, memory_wanted
from harness.engines.sglang.log import BELOW_CONTEXT

_FEWER_WEIGHTS = (
    "The weights do not fit beside what else uses the GPU (`nvidia-smi` shows it): quantize them, spread them over more"
    " GPUs (gpus: 2), or take a smaller model; `harness models check` has the sum."
)
_LAST_LINES = "See the last lines of its log."

CAUSES: tuple[Cause, ...] = (
    *RUNTIME,
    Cause(
        "unknown-argument",
        "entry",
        r"error: unrecognized arguments: ([^\n]+)",
        lambda match: f"this version of SGLang does not know the argument {match[1].strip()}",
        "Take it out of the entry's engine/args, or take the engine version that has it.",
        2,
    ),
    Cause(
        "ambiguous-argument",
        "entry",
        r"error: ambiguous option: (\S+) could match ([^\n]+)",
        lambda match: f"{match[1]} may be several arguments of this version of SGLang: {match[2].strip()}",
        "Write one of them in full in the entry's engine/args.",
        2,
    ),
    Cause(
        "invalid-value",
        "entry",
        r"error: argument (\S+?)(?:/\S+)?: (invalid [^\n]+|expected [^\n]+)",
        lambda match: f"SGLang does not take the value of {match[1]}: {match[2].strip()[:120]}",
        "Correct the entry.",
        2,
    ),
    Cause(
        "no-accelerator",
        "machine",
        r"No accelerator \(CUDA[^)]*\) or platform plugin is available|No CUDA devices found via torch\.cuda",
        "SGLang sees no GPU",
        "`nvidia-smi` shows whether the driver has one; a container gets it by the NVIDIA Container Toolkit.",
        3,
    ),
    *HUB,
    *OFFLINE,
    Cause(
        "unsupported-model",
        "entry",
        r"Model architectures \[([^\]]*)\] are not supported for now",
        lambda match: f"this version of SGLang does not know the architecture {match[1]}",
        "Take a newer engine version, or another model.",
        2,
    ),
    Cause(
        "remote-code",
        "entry",
        r"requires you to execute the (?:configuration|modeling|tokenizer) file|trust_remote_code=True"
        r"|contains custom code which must be executed",
        "the model brings code of its own",
        "Read that code; if you trust it, set trust_remote_code: true.",
        2,
    ),
    Cause(
        "total-above-context",
        "limits",
        r"User-specified context_length \((\d+)\) is greater than the derived context_length \((\d+)\)",
        lambda match: f"max_total_tokens {int(match[1]) - BELOW_CONTEXT:,} is above what the model was made for",
        lambda match: (
            f"Set max_total_tokens to at most {int(match[2]) - BELOW_CONTEXT}, or"
            " SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN: '1' in `env` if the model's positions can be stretched."
        ),
        2,
    ),
    Cause(
        "step-and-page",
        "limits",
        r"chunked_prefill_size must be divisible by page_size",
        "max_batch_prefill_tokens is not a multiple of the KV cache's page",
        "Set it to a multiple of 128.",
        2,
    ),
    Cause(
        "shards-and-heads",
        "entry",
        r"AssertionError: (\d+) is not divisible by (\d+)|assert self\.total_num_heads % tp_size == 0",
        "the model's attention heads do not divide by the number of GPUs",
        lambda match: f"Set gpus to one of {_divisors(match[1])}.",
        2,
    ),
    Cause(
        "quantization-mismatch",
        "entry",
        r"Quantization method specified in the model config \(([^)]*)\) does not match the quantization method"
        r" specified in the `quantization` argument \(([^)]*)\)",
        lambda match: f"the checkpoint is quantized as {match[1]}, the entry says {match[2]}",
        "Take `quantize` out: the checkpoint tells by itself.",
        2,
    ),
    Cause(
        "unknown-quantization",
        "entry",
        r"Unknown quantization method: (\S+?)\. Must be one of",
        lambda match: f"this version of SGLang has no quantization {match[1]}",
        "Take another method, or a checkpoint that is quantized already.",
        2,
    ),
    Cause(
        "gpu-too-old",
        "machine",
        r"SGLang only supports sm75 and above",
        "this GPU is older than SGLang's kernels",
        "Take a GPU of compute capability 7.5 or newer.",
        3,
    ),
    Cause(
        "kernels-too-old",
        "machine",
        r"Please reinstall the latest version with",
        "SGLang's kernel package does not go with this version of it",
        "Take the image of one release, or install the packages that this release asks for.",
        3,
    ),
    Cause(
        "no-cache-memory",
        "memory",
        r"Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=([\d.]+)\."
        r"(?: Raise --mem-fraction-static above ([\d.]+))?",
        lambda match: f"the weights fill cuda_memory_fraction {match[1]}: nothing is left for the KV cache",
        lambda match: (
            (f"Raise it above {match[2]}" if match[2] else "Raise it")
            + ", quantize the weights, or spread them over more GPUs (gpus: 2)."
        ),
    ),
    Cause(
        "no-cache-memory",
        "memory",
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        "the weights fill the memory that SGLang may take: nothing is left for the KV cache",
        "Raise cuda_memory_fraction, lower max_batch_prefill_tokens, quantize the weights, or use more GPUs (gpus: 2).",
    ),
    Cause(
        "graphs-memory",
        "memory",
        r"Capture cuda graph failed: [^\n]*out of memory",
        "there was no memory left to capture CUDA graphs",
        "Lower cuda_memory_fraction, so that more is left beside the KV cache, or max_batch_size.",
    ),
    Cause(
        "unbalanced-memory",
        "machine",
        r"The memory capacity is unbalanced\. Some GPUs may be occupied by other processes",
        "somebody else uses a part of the GPUs",
        "End what else uses them (`nvidia-smi` shows it).",
        3,
    ),
    Cause(
        "gpu-memory",
        "memory",
        r"(?:CUDA|HIP) out of memory|OutOfMemoryError|CUDA error: out of memory",
        "the GPU ran out of memory",
        "Lower cuda_memory_fraction or max_batch_prefill_tokens, so that more is left beside the KV cache.",
    ),
    *PORT,
    Cause(
        "inner-port",
        "machine",
        r"port_base at (\d+) is not available",
        lambda match: f"port {match[1]}, by which its processes talk, is in use",
        "Stop what listens there, or set --nccl-port and --dist-init-addr in engine/args.",
        3,
    ),
    Cause(
        "watchdog",
        "crash",
        r"Scheduler watchdog timeout|Watchdog timeout \(self\.watchdog_timeout",
        "its scheduler made no step for five minutes, and it ended itself",
        _LAST_LINES,
        worth_a_retry=True,
    ),
    Cause(
        "killed",
        "memory",
        r"scheduler died during initialization \(exit code: -9\)|exit code:? -9\b",
        "one of its processes was killed (signal 9), most likely for want of main memory",
        "Look into `dmesg` for the kernel's word, and give it more memory than the weights' size.",
        worth_a_retry=True,
    ),
    Cause(
        "child-failed",
        "crash",
        r"Received sigquit from a child process|SIGQUIT received|Scheduler hit an exception",
        "one of its processes failed and took the others along",
        _LAST_LINES,
        worth_a_retry=True,
    ),
    Cause(
        "warm-up-failed",
        "crash",
        r"Initialization failed\. warmup error",
        "its own first requests failed",
        _LAST_LINES,
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
        CAUSES, lines, engine_exit_code, memory_limit_hit=memory_limit_hit, serving=serving, sharpen=_sharpened
    )


def _sharpened(cause: Cause, text: str, serving: bool) -> Cause:
    """What helps against a full GPU depends on when it was full."""
    if cause.name != "gpu-memory":
        return cause
    full = replace(cause, found=f"{cause.found}{memory_wanted(text)}")
    if serving:
        return replace(
            full,
            name="gpu-memory-under-load",
            advice="Its limits hold at start but not under load: lower cuda_memory_fraction or"
            " max_batch_prefill_tokens; `harness probe` finds values that survive.",
        )
    if re.search(r"Load weight begin", text) and not re.search(r"Load weight end", text):
        return replace(full, name="weights-memory", advice=_FEWER_WEIGHTS)
    return full


def _divisors(heads: str | None) -> str:
    """Usual numbers of GPUs that divide the heads."""
    return ", ".join(str(count) for count in (1, 2, 4, 8) if heads is None or int(heads) % count == 0)
