"""From TGI to llama.cpp's server: what each setting becomes.

llama.cpp's side from its argument parser (common/arg.cpp) and from a running server, build 11549.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.engines.migration import Counterpart, Guide, dropped, flag, lost

_KV_CACHE = {"fp8_e4m3fn": "q8_0", "fp8_e5m2": "q8_0"}
_AT_MOST_SLOTS = 32


def _slots(concurrent: str) -> Mapping[str, Any]:
    return {"limits/max_concurrent_requests": None, "limits/max_batch_size": min(_AT_MOST_SLOTS, int(concurrent))}


FROM_TGI = Guide(
    settings={
        "repo": Counterpart("a repo or directory with GGUF files, and `file:` the one to serve", keys=lambda v: {}),
        "dtype": dropped("the GGUF file has its own"),
        "quantize": dropped("take a GGUF of that size, such as Q4_K_M for awq and gptq, Q8_0 for fp8 and eetq"),
        "kv_cache_dtype": Counterpart(
            "q8_0 is as large as fp8; the value cache needs flash attention, on by default",
            keys=lambda v: {"kv_cache_dtype": _KV_CACHE.get(v, v)},
        ),
        "gpus": Counterpart("layers are spread over all GPUs that it sees", keys=lambda v: {"gpus": int(v)}),
        "trust_remote_code": dropped("a GGUF holds no code"),
        "limits/max_total_tokens": Counterpart(
            "each slot gets this many: -c is this times the number of slots",
            keys=lambda v: {"limits/max_total_tokens": int(v)},
        ),
        "limits/max_input_tokens": lost(
            "only a prompt of a whole slot is refused; a shorter one leaves less to the answer"
        ),
        "limits/max_batch_total_tokens": dropped("the pool is max_total_tokens times max_batch_size, and nothing else"),
        "limits/max_concurrent_requests": Counterpart(
            "there is no bound of the queue: it waits without end, with no answer at all. It becomes the number of"
            " slots"
            f" (at most {_AT_MOST_SLOTS}), each with a share of the KV cache of its own: bound the queue in front",
            keys=_slots,
        ),
        "limits/cuda_memory_fraction": lost("the pool is as large as -c says; --fit-target leaves this many MiB free"),
        "env/SPECULATE": lost("args: [--model-draft, FILE] takes a second, smaller GGUF"),
        "env/CUDA_GRAPHS": dropped("used where they help"),
        "env/LORA_ADAPTERS": lost("args: [--lora, FILE], converted to GGUF"),
        "env/PREFIX_CACHING": Counterpart(
            "per slot, and 8 GiB of main memory besides (--cache-ram)",
            args=lambda v: () if v.lower() in ("1", "true") else ("--no-cache-prompt", "--cache-ram", "0"),
        ),
        "env/USE_PREFIX_CACHING": dropped("on by default"),
        "env/ROPE_SCALING": flag("--rope-scaling", "none, linear or yarn"),
        "env/ROPE_FACTOR": flag("--rope-scale"),
        "env/TOKENIZER_CONFIG_PATH": lost(
            "the tokenizer is in the GGUF; args: [--chat-template-file, FILE] for its template"
        ),
        "env/GRACEFUL_TERMINATION_TIMEOUT": lost(
            "SIGTERM stops generation at once and then waits for clients to leave: take it out of the load balancer"
            " first"
        ),
        "env/WAITING_SERVED_RATIO": dropped("a free slot takes the next request"),
        "env/MAX_WAITING_TOKENS": dropped("a free slot takes the next request"),
        "env/USAGE_STATS": dropped("it reports to nobody"),
        "env/DISABLE_USAGE_STATS": dropped("it reports to nobody"),
        "env/DISABLE_CRASH_REPORTS": dropped("it reports to nobody"),
        "env/ATTENTION": lost("args: [--flash-attn, 'on'] or 'off'; on where it can be"),
        "env/CORS_ALLOW_ORIGIN": lost("every origin is allowed: bound it in front"),
        "env/DISABLE_CUSTOM_KERNELS": dropped("it has one set of kernels"),
        "env/DISABLE_GRAMMAR_SUPPORT": dropped("grammars are always on"),
        "env/ENABLE_PREFILL_LOGPROBS": lost("log probabilities are those of the answer alone"),
        "env/JSON_OUTPUT": lost("its log is plain text"),
        "env/MAX_BEST_OF": lost("there is no best_of; `n` of a request takes as many slots"),
        "env/MAX_CLIENT_BATCH_SIZE": lost("bound it in front"),
        "env/MAX_STOP_SEQUENCES": lost("a request may have any number"),
        "env/MAX_TOP_N_TOKENS": lost("a request may ask for any number"),
        "env/OTLP_ENDPOINT": lost("it traces nothing"),
        "env/OTLP_SERVICE_NAME": lost("it traces nothing"),
        "env/PAYLOAD_LIMIT": lost("bound it in front"),
        "env/PREFILL_CHUNKING": dropped("prompts are read in pieces of --batch-size"),
        "env/TGI_WIGGLE_ROOM": lost("args: [--fit-target, MIB] leaves so much free where sizes are left to it"),
        "env/VALIDATION_WORKERS": lost("args: [--threads-http, N]"),
        "env/WATERMARK_GAMMA": lost("it marks no text"),
        "env/WATERMARK_DELTA": lost("it marks no text"),
        "env/PROMETHEUS_PORT": dropped("/metrics is on the same port, switched on by harness"),
    },
    habits=(
        "The KV cache is cut into as many equal shares as there are slots (max_batch_size): a chat never gets more than"
        " its share, however few there are. Without max_batch_size there are four slots on one shared pool, and when"
        " that"
        " is full every running answer ends with an error.",
        "A chat that outgrows its share ends with finish_reason `length` and fewer tokens than asked, under 200.",
        "Beyond the slots requests wait without limit and without a single byte of answer, not even a status.",
        "Metrics are off unless asked for (harness asks); counters move only when a request ends.",
        "Memory: weights, KV cache and compute buffers are taken at start; --fit shrinks what is not set, in silence.",
    ),
    routes=(
        "/generate and /generate_stream have no counterpart: clients use /v1/chat/completions or /v1/completions.",
        "The `model` of a request is ignored. temperature is 0.8 where a request says nothing; TGI is greedy.",
        "Errors in a stream come as an event `error` and the stream ends without [DONE]; nothing is answered with 429.",
    ),
)

GUIDES: Mapping[str, Guide] = {"tgi": FROM_TGI}
"""By the engine that an entry comes from."""
