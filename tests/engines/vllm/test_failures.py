"""Every way in which vLLM is known to fail has a name, an advice with a value, and the right exit code."""

from __future__ import annotations

import pytest

from harness.engines.vllm.failures import CAUSES, explain

ENTRY, MACHINE, SERVICE = 2, 3, 4
CORE, FRONT = "(EngineCore pid=77) ERROR 03-02 08:15:43 [core.py:1100] ", "(APIServer pid=41) "
LOADING = ["(EngineCore pid=77) INFO 03-02 08:15:11 [model_runner.py:388] Loading model from scratch..."]
LOADED = [
    *LOADING,
    "(EngineCore pid=77) INFO 03-02 08:15:22 [model_runner.py:421] Model loading took 3.25 GiB memory and 9.1",
]
SERVING = [*LOADED, "(APIServer pid=41) INFO:     Application startup complete."]
END = [
    CORE + "EngineCore failed to start.",
    FRONT + "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]
PYDANTIC = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 22.06 GiB"
    " of which 100.50 MiB is free."
)


def value_error(text: str) -> list[str]:
    return [FRONT + PYDANTIC, FRONT + f"  Value error, {text} [type=value_error, input_value=ArgsKwargs(())]"]


# log lines, the engine's exit code -> cause, exit code of the command, what found or advice must mention
CASES = [
    (["vllm serve: error: unrecognized arguments: --foo 3"], 2, "unknown-argument", ENTRY, "--foo 3"),
    (
        ["vllm serve: error: argument --dtype: invalid choice: 'bf16' (choose from 'auto', 'bfloat16')"],
        2,
        "invalid-value",
        ENTRY,
        "--dtype",
    ),
    (
        ["vllm serve: error: argument --max-num-seqs: invalid int value: 'x'"],
        2,
        "invalid-value",
        ENTRY,
        "invalid int value",
    ),
    (
        value_error(
            "User-specified max_model_len (65536) is greater than the derived max_model_len"
            " (max_position_embeddings=32768 or model_max_length=None in model's config.json)."
        ),
        1,
        "total-above-context",
        ENTRY,
        "32768",
    ),
    (
        value_error("max_num_batched_tokens (2048) is smaller than max_model_len (8192). This effectively limits"),
        1,
        "prefill-below-total",
        ENTRY,
        "8192",
    ),
    (
        value_error("max_num_batched_tokens (128) must be greater than or equal to max_num_seqs (256)."),
        1,
        "prefill-below-rows",
        ENTRY,
        "at least 256",
    ),
    (
        value_error("max_num_active_seqs (300) cannot be greater than max_num_seqs (256)."),
        1,
        "active-above-rows",
        ENTRY,
        "256",
    ),
    (
        value_error("long_prefill_token_threshold (9000) cannot be greater than the max_model_len (8192)."),
        1,
        "threshold-above-total",
        ENTRY,
        "8192",
    ),
    (
        value_error("Total number of attention heads (28) must be divisible by tensor parallel size (8)."),
        1,
        "shards-and-heads",
        ENTRY,
        "1, 2, 4",
    ),
    (
        value_error("World size (4) is larger than the number of available GPUs (2) in this node."),
        1,
        "too-few-gpus",
        MACHINE,
        "at most 2",
    ),
    (
        value_error(
            "Quantization method specified in the model config (awq) does not match the quantization method"
            " specified in the `quantization` argument (fp8)."
        ),
        1,
        "quantization-mismatch",
        ENTRY,
        "awq",
    ),
    (
        value_error("Unknown quantization method: eetq. Must be one of ['awq']."),
        1,
        "unknown-quantization",
        ENTRY,
        "eetq",
    ),
    (
        value_error("The quantization method fbgemm_fp8 is deprecated and will be removed in future versions of vLLM."),
        1,
        "deprecated-quantization",
        ENTRY,
        "--allow-deprecated-quantization",
    ),
    (
        value_error(
            "The quantization method fp8 is not supported for the current GPU. Minimum capability: 75. Current"
            " capability: 70."
        ),
        1,
        "gpu-too-old",
        MACHINE,
        "7.5",
    ),
    (
        value_error("torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]"),
        1,
        "dtype-and-quantize",
        ENTRY,
        "dtype: float16",
    ),
    (
        [
            CORE
            + "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4"
            " GPU has compute capability 7.5."
        ],
        1,
        "no-bfloat16",
        ENTRY,
        "Tesla T4",
    ),
    (
        [FRONT + "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser"],
        1,
        "tools-without-parser",
        ENTRY,
        "--tool-call-parser",
    ),
    (
        [FRONT + "KeyError: 'invalid tool call parser: x (chose from { hermes })'"],
        1,
        "unknown-parser",
        ENTRY,
        "tool call",
    ),
    (
        [FRONT + "ValueError: 'model' should be provided as the first positional argument when using 'vllm serve'"],
        1,
        "model-not-first",
        ENTRY,
        "engine/args",
    ),
    (
        [
            FRONT + "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1)",
            FRONT + "The above exception was the direct cause of the following exception:",
            FRONT + "ValueError: Invalid repository ID or local directory specified: 'acme/gated'.",
        ],
        1,
        "no-hub-token",
        MACHINE,
        "HF_TOKEN",
    ),
    (
        [
            FRONT + "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: x",
            FRONT + "ValueError: Invalid repository ID or local directory specified: 'acme/none'.",
        ],
        1,
        "no-such-repo",
        ENTRY,
        "repo",
    ),
    (
        [FRONT + "ValueError: Invalid repository ID or local directory specified: '/models/empty'."],
        1,
        "no-such-repo",
        ENTRY,
        "/models/empty",
    ),
    (
        [
            FRONT
            + "OSError: nope is not a valid git identifier (branch name, tag name or commit id) that exists for this"
            " model name."
        ],
        1,
        "no-such-revision",
        ENTRY,
        "revision",
    ),
    (
        [
            FRONT
            + "RuntimeError: Failed to load the model config. If the model is a custom model not yet available in the"
            " HuggingFace transformers library, consider setting `trust_remote_code=True` in LLM"
        ],
        1,
        "remote-code",
        ENTRY,
        "trust_remote_code",
    ),
    (
        [*LOADING, CORE + "RuntimeError: Cannot find any model weights with `/models/x`", *END],
        1,
        "no-weights",
        ENTRY,
        "",
    ),
    (
        value_error("Model architectures ['NopeForCausalLM'] are not supported for now. Supported architectures: dict"),
        1,
        "unsupported-model",
        ENTRY,
        "NopeForCausalLM",
    ),
    (
        [
            CORE + "ValueError: Free memory on device cuda:0 (10.5/22.0 GiB) on startup is less than desired GPU memory"
            " utilization (0.92, 20.24 GiB).",
            *END,
        ],
        1,
        "gpu-in-use",
        SERVICE,
        "at most 0.47",
    ),
    (
        [
            *LOADED,
            CORE + "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV"
            " cache is needed, which is larger than the available KV cache memory (9.52 GiB). Based on the available"
            " memory, the estimated maximum model length is 77968.",
            *END,
        ],
        1,
        "total-above-memory",
        SERVICE,
        "at most 77968",
    ),
    (
        [
            *LOADED,
            CORE + "ValueError: To serve at least one request with the models's max seq len (8192), (1.00 GiB KV cache"
            " is needed, which is larger than the available KV cache memory (0.52 GiB). ",
            *END,
        ],
        1,
        "total-above-memory",
        SERVICE,
        "below 8192",
    ),
    (
        [
            *LOADED,
            CORE + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            *END,
        ],
        1,
        "no-cache-blocks",
        SERVICE,
        "cuda_memory_fraction",
    ),
    (
        [*LOADING, CORE + "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization", *END],
        1,
        "gpu-memory-loading",
        SERVICE,
        "gpus: 2",
    ),
    ([*LOADING, CORE + OOM, *END], 1, "gpu-memory-loading", SERVICE, "100.50 MiB free"),
    ([*LOADED, CORE + OOM, *END], 1, "warmup-memory", SERVICE, "max_batch_prefill_tokens"),
    (
        [
            *LOADED,
            CORE + "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.",
            *END,
        ],
        1,
        "warmup-memory",
        SERVICE,
        "for example to 128",
    ),
    (
        [
            *LOADED,
            CORE + "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 21.3"
            " GiB.",
            *END,
        ],
        1,
        "memory-moved",
        SERVICE,
        "20.1 GiB",
    ),
    ([FRONT + "OSError: [Errno 98] Address already in use"], 1, "port-taken", MACHINE, "port"),
    (
        [FRONT + "RuntimeError: Failed to infer device type, please set the environment"],
        1,
        "no-cuda-device",
        MACHINE,
        "",
    ),
    (
        [FRONT + "ValueError: VLLM_PORT 'tcp://10.0.0.1:80' appears to be a URI. This may be caused by a Kubernetes"],
        1,
        "port-variable",
        ENTRY,
        "VLLM_PORT",
    ),
    ([*LOADING, "(Worker_TP0 pid=9) RuntimeError: NCCL error: unhandled cuda error", *END], 1, "nccl", MACHINE, ""),
    (
        [
            *LOADING,
            "(EngineCore pid=7) Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down",
            *END,
        ],
        1,
        "killed",
        SERVICE,
        "main memory",
    ),
    ([*LOADING, "(Worker_TP0 pid=9) Bus error (core dumped)", *END], 1, "shared-memory", MACHINE, "ipc"),
    ([*LOADING, *END], 1, "engine-start", SERVICE, ""),
]


@pytest.mark.parametrize(
    ("lines", "code", "cause", "exit_code", "word"), CASES, ids=[f"{n}-{c[2]}" for n, c in enumerate(CASES)]
)
def test_failure_is_named(lines: list[str], code: int, cause: str, exit_code: int, word: str) -> None:
    """Causes are found before their consequences, with the value to change."""
    failure = explain(lines, code)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert word in f"{failure.found} {failure.advice}"
    assert "{" not in f"{failure.found}{failure.advice}"


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [
                *SERVING,
                CORE + OOM,
                FRONT + "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.",
            ],
            "gpu-memory-under-load",
        ),
        ([*SERVING, CORE + "EngineCore encountered a fatal error."], "died-serving"),
    ],
)
def test_death_while_serving(lines: list[str], cause: str) -> None:
    """The front end ends by itself, with exit code 0, when the engine's process died."""
    assert explain(lines, 0, serving=True).cause == cause


def test_log_that_names_nothing() -> None:
    """An end without a cause is said to be one."""
    assert (
        explain(["(APIServer pid=41) INFO 03-02 08:15:04 [model.py:2148] Using max model len 6000"], 1).cause
        == "unknown"
    )


def test_a_good_start_is_no_failure() -> None:
    """None of the texts of a start that went well is taken for a cause."""
    from tests.engines.vllm.test_log import LOGS, RELEASES

    for release in RELEASES:
        lines = (LOGS / f"{release}.log").read_text(encoding="utf-8").splitlines()
        assert explain(lines, 0).cause == "unknown"


def test_every_cause_has_a_case() -> None:
    """A cause of vLLM's own that no line above shows is not tested."""
    from harness.engines.causes import HUB, OFFLINE, PORT, RUNTIME

    common = {cause.name for cause in (*RUNTIME, *HUB, *OFFLINE, *PORT)}
    assert {cause.name for cause in CAUSES} - common - {"gpu-memory", "died-serving"} <= {case[2] for case in CASES}
