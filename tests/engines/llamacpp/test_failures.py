"""Every way in which llama.cpp is known to fail has a name, an advice with what to change, and the right exit code."""

from __future__ import annotations

import pytest

from harness.engines.llamacpp.failures import CAUSES, explain

ENTRY, MACHINE, SERVICE = 2, 3, 4
START = ["0.00.000.633 I srv  llama_server: initializing ..."]
END = ["0.02.000.000 E srv  llama_server: exiting due to model loading error"]
LOAD = "0.01.000.000 E llama_model_load: error loading model: "
INIT = "0.01.000.000 E llama_init_from_model: failed to initialize the context: "
CUDA = "E ggml_backend_cuda_buffer_type_alloc_buffer: "
USAGE = ["", "usage:", "-c,    --ctx-size N", "", "to show complete usage, run with -h"]

# log lines -> cause, exit code of the command, what the advice or the finding must mention
CASES: list[tuple[list[str], str, int, str]] = [
    (
        ['Error response from daemon: could not select device driver "" with capabilities: [[gpu]]'],
        "no-gpu-runtime",
        MACHINE,
        "nvidia",
    ),
    (['error while handling argument "--device": invalid device: CUDA0', *USAGE], "no-gpu-found", MACHINE, "variant"),
    (
        [
            "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
            'error while handling argument "--device": invalid device: CUDA0',
        ],
        "driver-too-old",
        MACHINE,
        "driver",
    ),
    (["error: invalid argument: --nope"], "unknown-argument", ENTRY, "--nope"),
    (
        ['error while handling argument "-c": stoi', *USAGE],
        "invalid-value",
        ENTRY,
        "-c has a value that llama.cpp refuses: no number",
    ),
    (
        ['error while handling argument "-np": error: invalid value for n_parallel', *USAGE],
        "invalid-value",
        ENTRY,
        "-np",
    ),
    (
        ['error while handling environment variable "LLAMA_ARG_CTX_SIZE": stoi'],
        "invalid-value",
        ENTRY,
        "LLAMA_ARG_CTX_SIZE",
    ),
    (
        [*START, "E gguf_init_from_file: failed to open GGUF file '/srv/none.gguf' (No such file or directory)", *END],
        "no-such-file",
        ENTRY,
        "/srv/none.gguf",
    ),
    (
        [*START, "E gguf_init_from_reader: invalid magic characters: '????', expected 'GGUF'", *END],
        "not-gguf",
        ENTRY,
        ".gguf",
    ),
    ([*START, "E gguf_init_from_reader: failed to read magic", *END], "not-gguf", ENTRY, ".gguf"),
    (
        [
            *START,
            f"{LOAD}tensor 'output.weight' data is not within the file bounds, model is corrupted or incomplete",
            *END,
        ],
        "broken-file",
        SERVICE,
        "fetched again",
    ),
    ([*START, f"{LOAD}unknown model architecture: 'newer'", *END], "unsupported-model", ENTRY, "newer"),
    (["E hf_cache: error: GET failed (401): Invalid credentials"], "no-hub-token", MACHINE, "HF_TOKEN"),
    (
        ["E srv  llama_server: failed to download model: Download 'https://h/x.gguf' failed with status code: 403"],
        "no-hub-token",
        MACHINE,
        "licence",
    ),
    (["E get_repo_commit: error: GET failed (404): Repository not found"], "no-such-repo", ENTRY, "repo"),
    (
        ["E common_download_get_hf_plan: file 'chat.gguf' not found in repository"],
        "no-such-hub-file",
        ENTRY,
        "chat.gguf",
    ),
    (
        ["E srv: failed to download model: Download 'https://h/r/resolve/c/x.gguf' failed with status code: 404"],
        "no-such-hub-file",
        ENTRY,
        "x.gguf",
    ),
    (["E common_download_get_hf_plan: no GGUF files found in repository org/plain"], "no-gguf", ENTRY, "org/plain"),
    (
        ["E srv: failed to download model: Download 'https://h/x.gguf' failed with status code: -1"],
        "no-hub",
        MACHINE,
        "network",
    ),
    (["E get_repo_commit: error: HTTPLIB failed: Could not establish connection"], "no-hub", MACHINE, "network"),
    (
        ["E common_download_file_single: required file is not available in cache (offline mode): /x"],
        "not-in-cache",
        MACHINE,
        "--offline",
    ),
    (
        [*START, "E llama_init_from_model: quantized V cache requires flash_attn to be enabled", *END],
        "cache-type-needs-flash",
        ENTRY,
        "kv_cache_dtype",
    ),
    ([*START, f"{INIT}n_seq_max must be <= 256", *END], "too-many-slots", ENTRY, "at most 256"),
    (
        [
            *START,
            "E ggml_aligned_malloc: insufficient memory (attempted to allocate 97656.25 MB)",
            "E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 102400000000",
            f"{INIT}failed to allocate buffer for kv cache",
            *END,
        ],
        "cache-memory",
        SERVICE,
        "95.4 GiB",
    ),
    (
        [
            *START,
            f"{CUDA}allocating 20480.00 MiB on device 0: cudaMalloc failed: out of memory",
            f"{INIT}failed to allocate buffer for kv cache",
            *END,
        ],
        "cache-memory",
        SERVICE,
        "20.0 GiB",
    ),
    (
        [
            *START,
            "E ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 3074443296",
            "E graph_reserve: failed to allocate compute buffers",
            f"{INIT}failed to allocate compute pp buffers",
            *END,
        ],
        "compute-memory",
        SERVICE,
        "--ubatch-size",
    ),
    (
        [
            *START,
            f"{CUDA}allocating 40960.00 MiB on device 0: cudaMalloc failed: out of memory",
            f"{LOAD}unable to allocate CUDA0 buffer",
            *END,
        ],
        "weights-memory",
        SERVICE,
        "smaller type",
    ),
    (
        [
            "E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18121",
            "E exiting due to HTTP server error",
        ],
        "port-taken",
        MACHINE,
        "18121",
    ),
    (
        ["/src/llama-context.cpp:2289: GGML_ASSERT(n_outputs_max <= cparams.n_outputs_max) failed"],
        "assertion",
        SERVICE,
        "n_outputs_max",
    ),
    (["E CUDA error: an illegal memory access was encountered"], "gpu-error", SERVICE, "illegal memory access"),
    ([*START, *END], "not-loaded", SERVICE, "loaded"),
]


@pytest.mark.parametrize(("lines", "cause", "exit_code", "mentioned"), CASES)
def test_cause(lines: list[str], cause: str, exit_code: int, mentioned: str) -> None:
    """The cause, not its consequence; llama.cpp's own exit code is 1 every time."""
    failure = explain(lines, 1)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert mentioned in f"{failure.found} {failure.advice}"


def test_each_cause_of_its_own_is_tried() -> None:
    """But for those that are others' or need the moment."""
    common = {"no-such-runtime", "no-such-device", "no-such-gpu", "no-cuda-device", "gpu-too-old", "no-such-revision"}
    common |= {"nccl-shared-memory", "nccl", "no-space", "no-server"}
    untried = {each.name for each in CAUSES} - {cause for _, cause, _, _ in CASES} - common
    assert untried == {"gpu-memory", "main-memory", "missing-part", "chat-template"}


def test_memory_under_load_is_no_question_of_its_start() -> None:
    """The same words of the GPU's library mean other advice once it had served."""
    lines = ["E CUDA error: out of memory", "  current device: 0, in function alloc at ggml-cuda.cu:1"]
    assert explain(lines, 134).cause == "gpu-memory"
    under_load = explain(lines, 134, serving=True)
    assert under_load.cause == "gpu-memory-under-load"
    assert "under load" in str(under_load.advice)


def test_what_no_line_tells() -> None:
    """A kill is most likely the kernel's, and the container's own limit is known."""
    assert explain(START, 137).cause == "killed"
    assert explain(START, 137, memory_limit_hit=True).cause == "container-memory"
    assert explain(START, 1).cause == "unknown"


def test_overflow_of_the_shared_cache_is_no_death() -> None:
    """The server lives on; its log is full of it when it ends for another reason."""
    lines = ["E srv  update_slots: decode() failed: Context size has been exceeded."]
    assert explain([*lines, "E CUDA error: unspecified launch failure"], 134, serving=True).cause == "gpu-error"
