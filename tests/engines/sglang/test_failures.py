"""Every way in which SGLang is known to fail has a name, an advice with a value, and the right exit code."""

from __future__ import annotations

import pytest

from harness.engines.sglang.failures import CAUSES, explain

ENTRY, MACHINE, SERVICE = 2, 3, 4
AT = "[2026-03-02 08:15:09] "
LOADING = [AT + "Load weight begin. avail mem=21.50 GB"]
LOADED = [
    *LOADING,
    AT + "Load weight end. elapsed=5.12 s, type=LlamaForCausalLM, avail mem=18.25 GB, mem usage=3.25 GB.",
]
CHILD = AT + "Scheduler hit an exception: Traceback (most recent call last):"
END = [AT + "Received sigquit from a child process. It usually means the child failed."]
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 22.06 GiB"
    " of which 100.50 MiB is free."
)

# log lines, the engine's exit code -> cause, exit code of the command, what found or advice must mention
CASES = [
    (["sglang serve: error: unrecognized arguments: --foo 1"], 2, "unknown-argument", ENTRY, "--foo 1"),
    (
        ["sglang serve: error: ambiguous option: --cuda-graph-max-bs could match --cuda-graph-max-bs-decode, --x"],
        2,
        "ambiguous-argument",
        ENTRY,
        "--cuda-graph-max-bs-decode",
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
        "nvidia-smi",
    ),
    (
        ["OSError: acme/none is not a local folder and is not a valid model identifier listed on 'https://x'"],
        1,
        "no-such-repo",
        ENTRY,
        "repo",
    ),
    (["OSError: You are trying to access a gated repo."], 1, "no-hub-token", MACHINE, "HF_TOKEN"),
    (
        ["OSError: nope is not a valid git identifier (branch name, tag name or commit id) that exists for this model"],
        1,
        "no-such-revision",
        ENTRY,
        "revision",
    ),
    (
        ["ValueError: acme/own contains custom code which must be executed to correctly load the model."],
        1,
        "remote-code",
        ENTRY,
        "trust_remote_code: true",
    ),
    (
        ["ValueError: Model architectures ['NopeForCausalLM'] are not supported for now. Supported architectures: x"],
        1,
        "unsupported-model",
        ENTRY,
        "NopeForCausalLM",
    ),
    (
        [
            "ValueError: Warning: User-specified context_length (65538) is greater than the derived context_length"
            " (32768)."
        ],
        1,
        "total-above-context",
        ENTRY,
        "at most 32766",
    ),
    (["AssertionError: chunked_prefill_size must be divisible by page_size"], 1, "step-and-page", ENTRY, "multiple"),
    ([CHILD, "AssertionError: 28 is not divisible by 8", *END], -9, "shards-and-heads", ENTRY, "1, 2, 4."),
    (
        [CHILD, "    assert self.total_num_heads % tp_size == 0", "AssertionError", *END],
        -9,
        "shards-and-heads",
        ENTRY,
        "gpus",
    ),
    (
        [
            "ValueError: Quantization method specified in the model config (awq) does not match the quantization method"
            " specified in the `quantization` argument (fp8)."
        ],
        1,
        "quantization-mismatch",
        ENTRY,
        "awq",
    ),
    (
        ["ValueError: Unknown quantization method: eetq. Must be one of ['awq']."],
        1,
        "unknown-quantization",
        ENTRY,
        "eetq",
    ),
    ([CHILD, "RuntimeError: SGLang only supports sm75 and above.", *END], -9, "gpu-too-old", MACHINE, "7.5"),
    (
        ["Exception: sglang-kernel is too old. Please reinstall the latest version with `pip install x`"],
        1,
        "kernels-too-old",
        MACHINE,
        "image",
    ),
    (
        [
            *LOADED,
            CHILD,
            "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.5."
            " Raise --mem-fraction-static above 0.612 (minimum viable = 1 - available/pre = 0.6113).",
            *END,
        ],
        137,
        "no-cache-memory",
        SERVICE,
        "above 0.612",
    ),
    (
        [*LOADED, CHILD, "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", *END],
        137,
        "no-cache-memory",
        SERVICE,
        "cuda_memory_fraction",
    ),
    (
        [*LOADED, CHILD, "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2 MiB", *END],
        137,
        "graphs-memory",
        SERVICE,
        "cuda_memory_fraction",
    ),
    (
        [CHILD, "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes.", *END],
        137,
        "unbalanced-memory",
        MACHINE,
        "nvidia-smi",
    ),
    ([*LOADING, CHILD, OOM, *END], 137, "weights-memory", SERVICE, "100.50 MiB free"),
    ([*LOADED, CHILD, OOM, *END], 137, "gpu-memory", SERVICE, "max_batch_prefill_tokens"),
    (
        [
            *LOADED,
            AT + "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 3): address already in"
            " use",
        ],
        1,
        "port-taken",
        MACHINE,
        "port",
    ),
    (["ValueError: port_base at 30001 is not available in 30 seconds."], 1, "inner-port", MACHINE, "30001"),
    ([*LOADED, AT + "Scheduler watchdog timeout (self.watchdog_timeout=300)", *END], 137, "watchdog", SERVICE, "five"),
    (
        ["RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If exit code is -9 (SIGKILL)"],
        1,
        "killed",
        SERVICE,
        "main memory",
    ),
    ([CHILD, "torch.distributed.DistBackendError: NCCL error in: x.cpp:1", *END], 137, "nccl", MACHINE, ""),
    ([*LOADED, CHILD, "KeyError: 'x'", *END], 137, "child-failed", SERVICE, ""),
    ([*LOADED, AT + "Initialization failed. warmup error: Traceback"], 137, "warm-up-failed", SERVICE, ""),
]


@pytest.mark.parametrize(
    ("lines", "code", "cause", "exit_code", "word"), CASES, ids=[f"{n}-{case[2]}" for n, case in enumerate(CASES)]
)
def test_failure_is_named(lines: list[str], code: int, cause: str, exit_code: int, word: str) -> None:
    """Causes are found before their consequences; that the tree killed itself is no want of main memory."""
    failure = explain(lines, code)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert word in f"{failure.found} {failure.advice}"
    assert "{" not in f"{failure.found}{failure.advice}"


def test_death_while_serving() -> None:
    """A full GPU under load is told from one at the start."""
    assert explain([*LOADED, CHILD, OOM, *END], 137, serving=True).cause == "gpu-memory-under-load"
    assert explain([*LOADED, CHILD, "KeyError: 1", *END], 137, serving=True).cause == "child-failed"


def test_kill_without_a_word_is_want_of_memory() -> None:
    """Only a log that names nothing leaves signal 9 to speak for itself."""
    assert explain([AT + "The server is fired up and ready to roll!"], 137).cause == "killed"


def test_a_good_start_is_no_failure() -> None:
    """None of the texts of a start that went well is taken for a cause."""
    from tests.engines.sglang.test_log import LOGS, RELEASES

    for release in RELEASES:
        lines = (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines()
        assert explain(lines, 0).cause == "unknown"


def test_every_cause_has_a_case() -> None:
    """A cause of SGLang's own that no line above shows is not tested."""
    from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME

    common = {cause.name for cause in (*RUNTIME, *HUB, *OFFLINE, *PORT)}
    assert {cause.name for cause in CAUSES} - common <= {case[2] for case in CASES}
