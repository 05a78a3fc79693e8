"""Every way in which SGLang is known to fail has a name, an advice with a value, and the right exit code."""

from __future__ import annotations

import pytest

from harness.engines.sglang.failures import CAUSES, explain

ENTRY, MACHINE, SERVICE = 2, 3, 4
STAMP = "[2026-03-02 09:10:11 TP0] "
LOADING = [STAMP + "Load weight begin. avail mem=21.90 GB"]
LOADED = [*LOADING, STAMP + "Load weight end. elapsed=3.12 s, type=Qwen2ForCausalLM, avail mem=6.10 GB."]
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 22.06 GiB"
    " of which 100.50 MiB is free."
)
# A scheduler that fails has the whole tree killed, its own launcher included.
END = [STAMP + "Received sigquit from a child process. It usually means the child failed."]

# log lines, the engine's exit code -> cause, exit code of the command, what found or advice must mention
CASES = [
    (["sglang serve: error: unrecognized arguments: --foo 1"], 2, "unknown-argument", ENTRY, "--foo 1"),
    (["launch_server.py: error: unrecognized arguments: --foo 1"], 2, "unknown-argument", ENTRY, "--foo 1"),
    (
        [
            "sglang serve: error: ambiguous option: --cuda-graph-max-bs could match --cuda-graph-max-bs-decode,"
            " --cuda-graph-max-bs-prefill"
        ],
        2,
        "ambiguous-argument",
        ENTRY,
        "--cuda-graph-max-bs-decode",
    ),
    (
        ["sglang serve: error: argument --dtype: invalid choice: 'bf16' (choose from 'auto', 'half')"],
        2,
        "invalid-value",
        ENTRY,
        "--dtype",
    ),
    (
        ["launch_server.py: error: argument --context-length: invalid int value: '8k'"],
        2,
        "invalid-value",
        ENTRY,
        "--context-length",
    ),
    (
        ["RuntimeError: No accelerator (CUDA, XPU, HPU, NPU, MUSA, MPS) or platform plugin is available."],
        1,
        "no-accelerator",
        MACHINE,
        "sees no GPU",
    ),
    (
        ["ValueError: Model architectures ['NovelForCausalLM'] are not supported for now."],
        1,
        "unsupported-model",
        ENTRY,
        "NovelForCausalLM",
    ),
    (
        [
            "ValueError: User-specified context_length (65537) is greater than the derived context_length (32768)."
            " This may lead to incorrect model outputs or CUDA errors."
        ],
        1,
        "total-above-context",
        ENTRY,
        "at most 32767",
    ),
    (["AssertionError: 28 is not divisible by 8"], 1, "shards-and-heads", ENTRY, "1, 2 or 4"),
    (["AssertionError: chunked_prefill_size must be divisible by page_size"], 1, "step-and-page", ENTRY, "128"),
    (
        [
            "ValueError: Quantization method specified in the model config (awq) does not match the quantization"
            " method specified in the `quantization` argument (fp8)."
        ],
        1,
        "quantization-mismatch",
        ENTRY,
        "awq",
    ),
    (
        [
            *LOADED,
            "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.6."
            " Raise --mem-fraction-static above 0.71.",
            *END,
        ],
        -9,
        "no-cache-memory",
        SERVICE,
        "Raise it above 0.71",
    ),
    (
        [*LOADED, "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", *END],
        -9,
        "no-cache-memory",
        SERVICE,
        "Raise cuda_memory_fraction",
    ),
    ([*LOADING, OOM, *END], 137, "weights-memory", SERVICE, "gpus: 2"),
    ([*LOADED, f"Exception: Capture cuda graph failed: {OOM}", *END], 137, "graphs-memory", SERVICE, "Lower"),
    (
        [
            "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes."
            " pre_model_load_memory=10.0, local_gpu_memory=20.0"
        ],
        1,
        "unbalanced-memory",
        MACHINE,
        "nvidia-smi",
    ),
    ([*LOADED, OOM, *END], 137, "gpu-memory", SERVICE, "max_batch_prefill_tokens"),
    (["RuntimeError: port_base at 33001 is not available in 60 seconds."], 1, "inner-port", MACHINE, "33001"),
    (
        [*LOADED, STAMP + "Scheduler watchdog timeout (self.watchdog_timeout=300, self.soft=False)", *END],
        -9,
        "watchdog",
        SERVICE,
        "ended itself",
    ),
    (
        ["RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). See the log above."],
        1,
        "killed",
        SERVICE,
        "main memory",
    ),
    ([*LOADED, *END], -9, "child-failed", SERVICE, "took the others along"),
    (
        [*LOADED, STAMP + "Initialization failed. warmup error: Traceback (most recent call last):"],
        1,
        "warm-up-failed",
        SERVICE,
        "first requests",
    ),
]


@pytest.mark.parametrize(("lines", "code", "cause", "exit_code", "mentions"), CASES, ids=[c[2] for c in CASES])
def test_cause(lines: list[str], code: int, cause: str, exit_code: int, mentions: str) -> None:
    """The cause stands above its consequences, in the log's own order or not."""
    failure = explain(lines, code)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert mentions in f"{failure.found} {failure.advice}"


def test_every_own_cause_has_a_case() -> None:
    """A cause that nobody wrote a log for may never be found."""
    from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME

    shared = {cause.name for group in (HUB, OFFLINE, PORT, RUNTIME) for cause in group}
    assert {cause.name for cause in CAUSES} - shared <= {case[2] for case in CASES}


def test_memory_under_load_is_another_cause() -> None:
    """What was serving already fitted; then the load is what was too much."""
    assert explain([*LOADED, OOM, *END], 137, serving=True).cause == "gpu-memory-under-load"


def test_memory_is_told_in_figures() -> None:
    """PyTorch's own sum stands in what was found."""
    assert "512" in explain([*LOADED, OOM], 137).found


def test_killed_tree_is_not_taken_for_want_of_main_memory() -> None:
    """Exit code 137 with a cause above it is SGLang's own kill."""
    assert explain([*LOADED, OOM, *END], 137).cause == "gpu-memory"
