"""Every way in which TGI is known to fail has a name, an advice with a value, and the right exit code."""

from __future__ import annotations

import re
import textwrap

import pytest

from harness.engines.tgi.failures import CAUSES, explain

USUAL = [
    "INFO text_generation_launcher: Args {",
    "}",
    "INFO text_generation_launcher: Using attention flashinfer - Prefix caching true",
]
ROUTER = [
    *USUAL,
    "INFO text_generation_launcher: Starting Webserver",
    "INFO text_generation_router_v3: backends/v3/src/lib.rs:125: Warming up model",
]
END = [
    "ERROR text_generation_launcher: Webserver Crashed",
    "INFO text_generation_launcher: Shutting down shards",
    "Error: WebserverFailed",
]
ENTRY, MACHINE, SERVICE = 2, 3, 4

# log lines, the engine's exit code -> cause, exit code of the command, what the advice must mention
CASES = [
    (["Error response from daemon: Unknown runtime specified habana"], None, "no-such-runtime", MACHINE, "habana"),
    (
        ["Error response from daemon: unknown or invalid runtime name: nvidia"],
        None,
        "no-gpu-runtime",
        MACHINE,
        "nvidia",
    ),
    (
        [
            'Error response from daemon: error gathering device information while adding custom device "/dev/kfd": no'
            " such file or directory"
        ],
        None,
        "no-such-device",
        MACHINE,
        "/dev/kfd",
    ),
    (
        ["error: unexpected argument '--nope' found", "", "Usage: text-generation-launcher [OPTIONS]"],
        2,
        "unknown-argument",
        ENTRY,
        "",
    ),
    (
        ["error: invalid value '' for '--max-input-tokens <MAX_INPUT_TOKENS>': cannot parse integer from empty string"],
        2,
        "empty-value",
        ENTRY,
        "MAX_INPUT_TOKENS",
    ),
    (
        ["error: a value is required for '--quantize <QUANTIZE>' but none was supplied"],
        2,
        "empty-value",
        ENTRY,
        "QUANTIZE",
    ),
    (
        ["error: invalid value 'int8' for '--quantize <QUANTIZE>'", "  [possible values: awq, gptq, fp8]"],
        2,
        "invalid-value",
        ENTRY,
        "awq, gptq, fp8",
    ),
    (
        ["error: invalid value 'abc' for '--port <PORT>': invalid digit found in string"],
        2,
        "invalid-value",
        ENTRY,
        "number",
    ),
    (["error: the argument '--port <PORT>' cannot be used multiple times"], 2, "argument-twice", ENTRY, ""),
    (
        [
            *USUAL,
            'Error: ArgumentValidation("Both `max_input_tokens` (64) and `max_input_length` (64) are set. Please'
            " define only "
            '`max_input_tokens` as `max_input_length is deprecated for naming consistency.")',
        ],
        1,
        "both-input-limits",
        ENTRY,
        "max_input_tokens",
    ),
    ([*USUAL, 'Error: ArgumentValidation("`num_shard` cannot be < 1")'], 1, "bad-argument", ENTRY, ""),
    (
        [*USUAL, 'Error: NotEnoughCUDADevices("`sharded` is true but only found 1 CUDA devices")'],
        1,
        "no-cuda-device",
        MACHINE,
        "nvidia-smi",
    ),
    (
        [*USUAL, 'Error: ArgumentValidation("Sharding is currently not supported with `exl2` quantization")'],
        1,
        "sharded-exl2",
        ENTRY,
        "gpus",
    ),
    (
        [*USUAL, 'Error: ArgumentValidation("`max_input_tokens`(128) must be < `max_total_tokens`(128)")'],
        1,
        "input-not-below-total",
        ENTRY,
        "max_input_tokens",
    ),
    (
        [
            *USUAL,
            'Error: ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 128 and 100")',
        ],
        1,
        "total-above-budget",
        ENTRY,
        "100",
    ),
    (
        [
            *ROUTER,
            'Error: ArgumentValidation("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 9000 and 8000")',
            *END,
        ],
        1,
        "total-above-budget",
        SERVICE,
        "8000",
    ),
    (
        [
            *ROUTER,
            'Error: ArgumentValidation("`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`.'
            ' Given: 4096 and 2048")',
            *END,
        ],
        1,
        "prefill-above-budget",
        SERVICE,
        "2048",
    ),
    (
        [
            *ROUTER,
            'Error: ArgumentValidation("`max_batch_prefill_tokens` must be >= `max_input_tokens`. Given: 32 and 64")',
            *END,
        ],
        1,
        "prefill-below-input",
        SERVICE,
        "64",
    ),
    ([*ROUTER, 'Error: ArgumentValidation("`max_batch_size` must be > 0")', *END], 1, "bad-argument", SERVICE, ""),
    (
        [
            "thread 'main' panicked: --num-shard and CUDA_VISIBLE_DEVICES/NVIDIA_VISIBLE_DEVICES/ZE_AFFINITY_MASK"
            " are not set"
        ],
        101,
        "no-cuda-device",
        MACHINE,
        "gpus",
    ),
    (
        [
            *USUAL,
            "ERROR text_generation_launcher: text-generation-server not found in PATH",
            "ERROR text_generation_launcher: Please install it with `make install-server`",
            "Error: DownloadError",
        ],
        1,
        "no-server",
        MACHINE,
        "compose",
    ),
    (
        [
            "ERROR download: text_generation_launcher: Download encountered an error: ",
            "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1)",
            "Cannot access gated repo for url https://huggingface.co/api/models/meta-llama/Llama-3.1-8B.",
            "Error: DownloadError",
        ],
        1,
        "no-hub-token",
        MACHINE,
        "HF_TOKEN",
    ),
    (
        [
            "ERROR download: text_generation_launcher: Download encountered an error: ",
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)",
            "Repository Not Found for url: https://huggingface.co/api/models/a/b.",
            "If you are trying to access a private or gated repo, make sure you are authenticated.",
            "Error: DownloadError",
        ],
        1,
        "no-such-repo",
        ENTRY,
        "repo",
    ),
    (
        [
            "ERROR download: text_generation_launcher: Download encountered an error: ",
            "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/api/models/a/b",
            "",
            "The above exception was the direct cause of the following exception:",
            "",
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1)",
            "",
            "Repository Not Found for url: https://huggingface.co/api/models/a/b.",
            "Error: DownloadError",
        ],
        1,
        "no-such-repo",
        ENTRY,
        "repo",
    ),
    (
        ["HTTPError: 403 Client Error: Forbidden for url: https://huggingface.co/a/b/resolve/main/config.json"],
        1,
        "no-hub-token",
        MACHINE,
        "HF_TOKEN",
    ),
    (
        [
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries"
            ' exceeded with url: /a/b/resolve/main/config.json (Caused by NameResolutionError("Failed to resolve',
            "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file",
            "Error: ShardCannotStart",
        ],
        1,
        "no-hub",
        MACHINE,
        "network",
    ),
    (
        ["LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder"],
        1,
        "not-in-cache",
        MACHINE,
        "repo",
    ),
    (
        ["NotImplementedError: Sharded Llama requires Flash Attention enabled models."],
        1,
        "no-flash-attention",
        3,
        "GPU",
    ),
    (["AssertionError: Each process is one gpu"], 1, "no-cuda-device", MACHINE, "gpus"),
    (
        ["RuntimeError: weight model.layers.0.mlp.gate_proj.weight does not exist"],
        1,
        "other-weights",
        ENTRY,
        "quantize",
    ),
    (
        [
            "ValueError: The backend ipex does not support sliding window attention that is used by the model type"
            " mistral. Please launch TGI with the argument `--max-input-tokens` smaller than sliding_window=4096 (got"
        ],
        1,
        "sliding-window",
        ENTRY,
        "max_input_tokens to at most 4096",
    ),
    (["torch.distributed.DistBackendError: NCCL error in: /opt/x.cpp:1970"], 1, "nccl", MACHINE, "NCCL_P2P_DISABLE"),
    (
        ["huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", "Error: DownloadError"],
        1,
        "no-such-revision",
        ENTRY,
        "revision",
    ),
    (["OSError: [Errno 28] No space left on device", "Error: DownloadError"], 1, "no-space", MACHINE, "df"),
    (
        [
            "requests.exceptions.ConnectionError: Failed to resolve 'huggingface.co' ([Errno -3] Temporary failure"
            " in name resolution)"
        ],
        1,
        "no-hub",
        MACHINE,
        "network",
    ),
    (
        ["Download process was signaled to shutdown with signal 9: ", "Error: DownloadError"],
        1,
        "killed-download",
        SERVICE,
        "memory",
    ),
    (
        ["ERROR text_generation_launcher: Download encountered an error: ", "odd", "Error: DownloadError"],
        1,
        "download",
        SERVICE,
        "last lines of its log",
    ),
    (
        [
            "ERROR shard-manager: text_generation_launcher: Shard complete standard error output:",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "ERROR text_generation_launcher: Shard 0 failed to start",
            "Error: ShardCannotStart",
        ],
        1,
        "gpu-memory",
        SERVICE,
        "max_batch_prefill_tokens",
    ),
    (
        [
            "ERROR shard-manager: text_generation_launcher: Shard process was signaled to shutdown with signal 9"
            " rank=0",
            "ERROR text_generation_launcher: Shard 0 failed to start",
            "Error: ShardCannotStart",
        ],
        1,
        "killed",
        SERVICE,
        "memory",
    ),
    (
        ["Shard process was signaled to shutdown with signal 11 rank=0", "Error: ShardCannotStart"],
        1,
        "crashed-shard",
        SERVICE,
        "",
    ),
    (
        [
            *ROUTER,
            "ERROR text_generation_launcher: Method Warmup encountered an error.",
            'Error: Backend(Warmup(Generation("Not enough memory to handle 8192 prefill tokens. You need to decrease '
            '`--max-batch-prefill-tokens`")))',
            *END,
        ],
        1,
        "warmup-memory",
        SERVICE,
        "4096",
    ),
    (
        [
            *ROUTER,
            "UnboundLocalError: cannot access local variable 'num_tokens' where it is not associated with a value",
            *END,
        ],
        1,
        "warmup-memory",
        SERVICE,
        "half",
    ),
    (
        [*ROUTER, 'Error: Backend(Warmup(Generation("CUDA out of memory. Tried to allocate 6.00 GiB")))', *END],
        1,
        "gpu-memory",
        SERVICE,
        "gpus",
    ),
    ([*ROUTER, "Error: Backend(NotEnoughMemory(131072))", *END], 1, "total-above-memory", SERVICE, "131072"),
    (
        [
            *ROUTER,
            'Error: Backend(Warmup(Generation("transport error")))',
            "ERROR text_generation_launcher: Webserver Crashed",
            "Shard process was signaled to shutdown with signal 9 rank=0",
            "Error: WebserverFailed",
        ],
        1,
        "killed",
        SERVICE,
        "memory",
    ),
    (
        [
            *ROUTER,
            "ERROR text_generation_router::server: Failed to bind to 0.0.0.0:8650: Address already in use (os"
            " error 98)",
            'Error: WebServer(Axum(Os { code: 98, kind: AddrInUse, message: "Address already in use" }))',
            *END,
        ],
        1,
        "port-taken",
        MACHINE,
        "port",
    ),
    (
        [
            *ROUTER,
            'panicked: failed to build prometheus recorder: FailedToCreateHTTPListener("Address already in use'
            ' (os error 98)")',
            *END,
        ],
        1,
        "metrics-port-taken",
        MACHINE,
        "PROMETHEUS_PORT",
    ),
    (
        [
            *ROUTER,
            "ERROR text_generation_router::server: Failed to import python tokenizer OSError: x",
            'Error: WebServer(Tokenizer("Unable to load tokenizer."))',
            *END,
        ],
        1,
        "tokenizer",
        SERVICE,
        "tokenizer.json",
    ),
    (
        [
            "ValueError: `num_heads` must be divisible by `num_shards` (got `num_heads`: 14 and `num_shards`: 4",
            "Error: ShardCannotStart",
        ],
        1,
        "shards-and-heads",
        ENTRY,
        "1, 2",
    ),
    (
        ["RuntimeError: No CUDA GPUs are available", "Error: ShardCannotStart"],
        1,
        "no-cuda-device",
        MACHINE,
        "nvidia-smi",
    ),
    (
        ["RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "Error: ShardCannotStart"],
        1,
        "driver-too-old",
        MACHINE,
        "driver",
    ),
    (
        ['Error response from daemon: could not select device driver "nvidia" with capabilities: [[gpu]]'],
        None,
        "no-gpu-runtime",
        MACHINE,
        "nvidia-container-toolkit",
    ),
    (
        [
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4, please update your driver:"
            " unknown"
        ],
        None,
        "driver-too-old",
        MACHINE,
        "driver",
    ),
    (["driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated"], None, "port-taken", MACHINE, "port"),
    (
        [*ROUTER, "INFO text_generation_router::server: x: Connected", "Shard 0 crashed", "Error: ShardFailed"],
        1,
        "died-serving",
        SERVICE,
        "",
    ),
    (
        [
            *ROUTER,
            "INFO text_generation_router::server: x: Connected",
            "Server error: CUDA out of memory. Tried to allocate 1.00 GiB",
            "ERROR text_generation_launcher: Shard 0 crashed",
            "Error: ShardFailed",
        ],
        1,
        "gpu-memory-under-load",
        SERVICE,
        "CUDA_MEMORY_FRACTION",
    ),
    (
        ["Traceback (most recent call last):", "ZeroDivisionError: division by zero"],
        1,
        "unknown",
        SERVICE,
        "last lines of its log",
    ),
    ([], 137, "killed", SERVICE, "memory"),
    (
        [
            "WARN text_generation_launcher: No safetensors weights found for model /models/mine at revision None."
            " Converting PyTorch weights to safetensors.",
            "ERROR download: Download encountered an error:",
            'SafetensorError: Error while serializing: IoError(Os { code: 30, message: "Read-only file system" })',
            "Error: DownloadError",
        ],
        1,
        "folder-read-only",
        ENTRY,
        "save_pretrained",
    ),
]


@pytest.mark.parametrize(("lines", "code", "cause", "exit_code", "mentions"), CASES, ids=[case[2] for case in CASES])
def test_cause_is_named(lines: list[str], code: int | None, cause: str, exit_code: int, mentions: str) -> None:
    """A known text leads to its cause, to the exit code that the contract gives it, and to an advice that can"
    " be followed."""
    failure = explain(lines, code)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert mentions in f"{failure.found} {failure.advice}"
    assert failure.engine_exit_code == code
    shown = [line for line in lines if line.strip() and line not in USUAL[:2]]
    assert failure.last_lines == tuple(shown)[-15:]


@pytest.mark.parametrize(
    "dump",
    [
        ["INFO text_generation_launcher: Args {", '    model_id: "a/b",', "    env: false,", "}"],
        ['INFO text_generation_launcher: Args { model_id: "a/b", env: false }'],
        ['INFO text_generation_launcher: Args {\n    model_id: "a/b",\n}'],
    ],
)
def test_last_lines_leave_the_dump_of_options_out(dump: list[str]) -> None:
    """Whether it came in lines, in one, or as one record of JSON."""
    failure = explain([*dump, "Error: DownloadError"], 1)
    assert failure.last_lines == ("Error: DownloadError",)


def test_words_that_a_traceback_broke_are_put_together() -> None:
    """Python's pretty tracebacks break what they say at 80 columns; the sentence, not the line, is what is known."""
    text = (
        "ValueError: The backend ipex does not support sliding window attention that is used by the model type mistral."
        " To use this model nonetheless with the ipex backend, please launch TGI with the argument `--max-input-tokens`"
        " smaller than sliding_window=4096 (got here max_input_tokens=8000)."
    )
    lines = ["2026-01-01T00:00:00.0Z ERROR text_generation_launcher: Shard complete standard error output:", ""]
    lines += [
        *textwrap.wrap(text, 80),
        "2026-01-01T00:00:00.1Z ERROR text_generation_launcher: Shard 0 failed to start",
    ]
    failure = explain(lines, 1)
    assert failure.cause == "sliding-window"
    assert failure.line == text
    apart = explain(["x" * 70, "2026-01-01T00:00:00.1Z ERROR weight a does not exist"], 1)
    assert apart.line == "2026-01-01T00:00:00.1Z ERROR weight a does not exist"


def test_full_gpu_is_told_with_its_numbers() -> None:
    """What was wanted, what was free, and who else has the memory; while weights load no limit of TGI helps."""
    text = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 22.05"
        " GiB of which 4.12 MiB is free. Process 1234 has 21.50 GiB memory in use."
    )
    loading = explain(["INFO text_generation_launcher: Starting shard rank=0", text, "Error: ShardCannotStart"], 1)
    assert loading.cause == "gpu-memory-loading"
    assert "20.00 MiB wanted and 4.12 MiB free, another process has 21.50 GiB" in loading.found
    assert "max_batch_prefill_tokens" not in (loading.advice or "")
    older = explain(["CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.10 GiB total; 1.19 GiB free;"], 1)
    assert "2.00 GiB wanted and 1.19 GiB free" in older.found


def test_death_while_serving_is_known_without_the_start_of_the_log() -> None:
    """A bench reads the log from when it began."""
    failure = explain(["CUDA out of memory.", "Shard 0 crashed", "Error: ShardFailed"], 1, serving=True)
    assert failure.cause == "gpu-memory-under-load"


def test_hidden_lack_of_memory_is_blamed_on_the_longest_sequence() -> None:
    """The cache of max_total_tokens is allocated before the prefill; with a smaller prefill budget nothing changes."""
    lines = [
        *ROUTER,
        "    max_total_tokens: Some(",
        "        2000000,",
        "INFO text_generation_launcher: Default `max_batch_prefill_tokens` to 4096",
        "RuntimeError: cannot access local variable 'num_tokens' where it is not associated with a value",
    ]
    advice = explain(lines, 1).advice or ""
    assert "max_total_tokens (2000000), for example to 983040" in advice
    assert "prefill" not in advice


def test_warm_up_of_a_long_sequence_is_not_blamed_on_the_prefill_alone() -> None:
    """TGI names the prefill budget; the cache of one sequence of max_total_tokens has to fit as well."""
    lines = [
        *ROUTER,
        "    max_total_tokens: Some(",
        "        130000,",
        "    ),",
        "INFO text_generation_launcher: Default `max_batch_prefill_tokens` to 8787",
        "Not enough memory to handle 8787 prefill tokens. You need to decrease `--max-batch-prefill-tokens`",
    ]
    assert "lower max_total_tokens (130000)" in (explain(lines, 1).advice or "")


def test_container_limit_is_told_from_gpu_memory() -> None:
    """A container that hit its own memory limit is no matter of the GPU."""
    failure = explain(["INFO text_generation_launcher: Starting shard rank=0"], 137, memory_limit_hit=True)
    assert (failure.cause, failure.kind) == ("container-memory", "memory")


def test_healthy_log_names_nothing() -> None:
    """Warnings and a client's refused request are no cause of anything."""
    lines = [
        *ROUTER,
        "WARN text_generation_router::server: no pipeline tag found for model m",
        "ERROR chat_completions: text_generation_router::infer: router/src/infer/mod.rs:126: `inputs` cannot be empty",
        "INFO text_generation_router::server: router/src/server.rs:2302: Connected",
    ]
    assert explain(lines, 0).cause == "unknown"


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_every_cause_has_words(cause: object) -> None:
    """No cause without a pattern that compiles, a sentence, and an advice."""
    assert re.compile(cause.pattern).pattern  # type: ignore[attr-defined]
    assert cause.found  # type: ignore[attr-defined]
    assert cause.advice  # type: ignore[attr-defined]
