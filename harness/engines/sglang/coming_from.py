"""From TGI to SGLang: what each setting becomes.

SGLang's side from its argument parser and scheduler, release 0.5.23 (server_args.py, managers/).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.engines.migration import Counterpart, Guide, dropped, lost

_KV_CACHE = {"fp8_e4m3fn": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}


def _quantize(method: str) -> Mapping[str, Any]:
    """Checkpoints that were made quantized say so themselves; fp8 is made while loading, as in TGI."""
    return {"quantize": "fp8" if method in ("fp8", "eetq") else None}


def _graphs(sizes: str) -> tuple[str, ...]:
    listed = sizes.split(",")
    if listed == ["0"]:
        return ("--cuda-graph-backend-decode", "disabled")
    return ("--cuda-graph-bs-decode", *listed)


def _loras(adapters: str) -> tuple[str, ...]:
    return ("--enable-lora", "--lora-paths", *adapters.split(","))


def _speculate(tokens: str) -> tuple[str, ...]:
    return ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", tokens) if tokens != "0" else ()


def _radix(value: str) -> tuple[str, ...]:
    return () if value.lower() in ("1", "true") else ("--disable-radix-cache",)


def _chunking(value: str) -> Mapping[str, Any]:
    return {} if value.lower() in ("1", "true") else {"limits/max_batch_prefill_tokens": None}


FROM_TGI = Guide(
    settings={
        "dtype": Counterpart(
            "without it TGI takes float16, SGLang what the checkpoint says", keys=lambda v: {"dtype": v}
        ),
        "quantize": Counterpart(
            "awq, gptq, marlin and compressed-tensors are read from the checkpoint; fp8 is made while loading; eetq"
            " becomes fp8; exl2 needs another checkpoint",
            keys=_quantize,
        ),
        "kv_cache_dtype": Counterpart(
            "SGLang's word for fp8_e4m3fn is fp8_e4m3", keys=lambda v: {"kv_cache_dtype": _KV_CACHE.get(v, v)}
        ),
        "limits/max_input_tokens": lost(
            "SGLang bounds prompt and answer together (max_total_tokens), and a prompt by five tokens less"
        ),
        "limits/max_batch_total_tokens": Counterpart(
            "--max-total-tokens: here it holds for every model; leave it out to take what the fraction gives",
            keys=lambda v: {"limits/max_batch_total_tokens": int(v)},
        ),
        "limits/max_batch_prefill_tokens": Counterpart(
            "--chunked-prefill-size: prompts are cut to it, and raising it shrinks the KV cache, as in TGI",
            keys=lambda v: {"limits/max_batch_prefill_tokens": int(v)},
        ),
        "limits/max_concurrent_requests": Counterpart(
            "TGI answers 429 beyond it, SGLang 503 beyond --max-queued-requests",
            keys=lambda v: {"limits/max_concurrent_requests": int(v)},
        ),
        "limits/cuda_memory_fraction": lost(
            "--mem-fraction-static is of weights and KV cache together, and by default computed from the card: leave it"
        ),
        "env/CUDA_GRAPHS": Counterpart("0 switches them off; else the batches that have one", args=_graphs),
        "env/SPECULATE": Counterpart("n-grams of the prompt; drafts of a model need its own settings", args=_speculate),
        "env/LORA_ADAPTERS": Counterpart("a request names the adapter", args=_loras),
        "env/PREFIX_CACHING": Counterpart("the radix cache is on", args=_radix),
        "env/USE_PREFIX_CACHING": Counterpart("the radix cache is on", args=_radix),
        "env/PREFILL_CHUNKING": Counterpart("args: [--chunked-prefill-size, '-1'] switches it off", keys=_chunking),
        "env/ROPE_SCALING": lost("args: [--json-model-override-args, '{\"rope_scaling\": {...}}']"),
        "env/ROPE_FACTOR": lost("args: [--json-model-override-args, '{\"rope_scaling\": {...}}']"),
        "env/TOKENIZER_CONFIG_PATH": Counterpart(args=lambda v: ("--tokenizer-path", v)),
        "env/CORS_ALLOW_ORIGIN": lost("every origin is allowed: bound it in front"),
        "env/GRACEFUL_TERMINATION_TIMEOUT": lost(
            "SIGTERM drains without a limit: the stack's own grace period bounds it"
        ),
        "env/ATTENTION": lost("SGLang chooses by itself; args: [--attention-backend, NAME] forces one of its own"),
        "env/OTLP_ENDPOINT": Counterpart(args=lambda v: ("--enable-trace", "--otlp-traces-endpoint", v)),
        "env/OTLP_SERVICE_NAME": dropped("named by the engine"),
        "env/WAITING_SERVED_RATIO": dropped("args: [--schedule-conservativeness, N] is the nearest"),
        "env/MAX_WAITING_TOKENS": dropped("args: [--schedule-conservativeness, N] is the nearest"),
        "env/DISABLE_GRAMMAR_SUPPORT": Counterpart(
            args=lambda v: ("--grammar-backend", "none") if v.lower() in ("1", "true") else ()
        ),
        "env/ENABLE_PREFILL_LOGPROBS": dropped("asked for by each request"),
        "env/JSON_OUTPUT": lost("its log is plain text"),
        "env/PAYLOAD_LIMIT": lost("bound it in front"),
        "env/MAX_BEST_OF": lost("`n` of a request has no bound"),
        "env/MAX_STOP_SEQUENCES": lost("a request may have any number"),
        "env/MAX_TOP_N_TOKENS": lost("a request may ask for any number"),
        "env/MAX_CLIENT_BATCH_SIZE": lost("bound it in front"),
        "env/VALIDATION_WORKERS": lost("args: [--tokenizer-worker-num, N] where tokenizing is what limits"),
        "env/PROMETHEUS_PORT": dropped("/metrics is on the same port, switched on by harness"),
        "env/DISABLE_CRASH_REPORTS": dropped("it reports to nobody"),
        "env/DISABLE_CUSTOM_KERNELS": lost("args: [--attention-backend, torch_native] is the nearest"),
        "env/TGI_WIGGLE_ROOM": dropped("the default of --mem-fraction-static keeps room by itself"),
        "env/WATERMARK_GAMMA": lost("args: [--enable-watermark, --watermark-config, JSON], another scheme"),
        "env/WATERMARK_DELTA": lost("args: [--enable-watermark, --watermark-config, JSON], another scheme"),
        "env/USAGE_STATS": dropped("it reports to nobody"),
        "env/DISABLE_USAGE_STATS": dropped("it reports to nobody"),
    },
    habits=(
        "When the KV cache is full, running chats are retracted and read in again: watch"
        " sglang:num_retracted_requests_total, or set the limits that `harness probe` finds.",
        "The radix (prefix) cache is on: repeated prompts measure it. `harness bench` sends no prompt twice.",
        "Sampling defaults come from the model's generation_config.json; TGI is greedy unless asked. Send temperature"
        " yourself.",
        "Metrics are off unless asked for; harness asks.",
        "A context longer than the KV cache is only a warning at start: the longest chat is then what the cache holds.",
        "/health generates a token by default and takes a second or more; /ready is cheap.",
        "Listens on 127.0.0.1 and port 30000 by default (harness sets both within a container).",
        "Needs a large /dev/shm (harness renders it).",
    ),
    routes=(
        "/generate exists with other fields and another answer; /generate_stream and /info do not: clients use"
        " /v1/chat/completions or /v1/completions.",
        "A full queue answers 503 instead of 429; in a stream that is an event `error` under status 200.",
        "A stream may begin with a line `event:` before `data:`; one frame may hold several tokens.",
    ),
)

GUIDES: Mapping[str, Guide] = {"tgi": FROM_TGI}
"""By the engine that an entry comes from."""
