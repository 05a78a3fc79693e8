"""From TGI to vLLM: what each setting becomes.

TGI's side from its launcher (see engines/tgi/options.py); vLLM's from its argument parser and configuration, releases
0.21 to 0.32 (engine/arg_utils.py, config/).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.engines.migration import Counterpart, Guide, dropped, flag, is_true, lost, switch

_KV_CACHE = {"fp8_e4m3fn": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}


def _quantize(method: str) -> Mapping[str, Any]:
    """Checkpoints that were made quantized say so themselves; fp8 is made while loading, as in TGI."""
    return {"quantize": "fp8" if method in ("fp8", "eetq") else None}


def _graphs(sizes: str) -> tuple[str, ...]:
    listed = sizes.split(",")
    return ("--enforce-eager",) if listed == ["0"] else ("--cudagraph-capture-sizes", *listed)


def _speculate(tokens: str) -> tuple[str, ...]:
    count = int(tokens) if tokens.isdigit() else 0
    settings = {"method": "ngram", "num_speculative_tokens": count, "prompt_lookup_max": count}
    return ("--speculative-config", json.dumps(settings)) if count else ()


def _loras(adapters: str) -> tuple[str, ...]:
    return ("--enable-lora", "--lora-modules", *adapters.split(","))


FROM_TGI = Guide(
    settings={
        "dtype": Counterpart(
            "without it TGI takes float16, vLLM what the checkpoint says (mostly bfloat16)", keys=lambda v: {"dtype": v}
        ),
        "quantize": Counterpart(
            "awq, gptq, marlin and compressed-tensors are read from the checkpoint; fp8 is made while loading; eetq"
            " becomes fp8; bitsandbytes needs vLLM 0.27 or older, or its plugin; exl2 needs another checkpoint",
            keys=_quantize,
        ),
        "kv_cache_dtype": Counterpart(
            "vLLM's word for fp8_e4m3fn is fp8_e4m3", keys=lambda v: {"kv_cache_dtype": _KV_CACHE.get(v, v)}
        ),
        "limits/max_input_tokens": lost(
            "vLLM bounds only prompt and answer together (max_total_tokens): a longer prompt leaves less for the"
            " answer;"
            " bound prompts in front of it"
        ),
        "limits/max_batch_total_tokens": dropped(
            "the KV cache is sized from cuda_memory_fraction, as TGI does it with flash attention;"
            " args: [--kv-cache-memory-bytes, BYTES] fixes it"
        ),
        "limits/max_batch_prefill_tokens": Counterpart(
            "--max-num-batched-tokens: shared with decoding, and prompts are cut to it, so it need not hold the"
            " longest",
            keys=lambda v: {"limits/max_batch_prefill_tokens": int(v)},
        ),
        "limits/max_concurrent_requests": Counterpart(
            "TGI answers 429 beyond it; vLLM 0.32 and newer 503, older ones queue without end",
            keys=lambda v: {"limits/max_concurrent_requests": int(v)},
        ),
        "limits/cuda_memory_fraction": Counterpart(
            "TGI's is of what is free and keeps a tenth back by itself, vLLM's of the whole GPU: 1.0 there is about"
            " 0.92"
            " here, the default",
            keys=lambda v: {"limits/cuda_memory_fraction": round(min(0.92, 0.92 * float(v)), 3)},
        ),
        "env/CUDA_GRAPHS": Counterpart("0 switches them off", args=_graphs),
        "env/SPECULATE": Counterpart("n-grams of the prompt; a Medusa model needs its own settings", args=_speculate),
        "env/LORA_ADAPTERS": Counterpart("a request names the adapter as its model", args=_loras),
        "env/PREFIX_CACHING": switch("--enable-prefix-caching", off="--no-enable-prefix-caching"),
        "env/USE_PREFIX_CACHING": switch("--enable-prefix-caching", off="--no-enable-prefix-caching"),
        "env/PREFILL_CHUNKING": switch("--enable-chunked-prefill", "on by default", off="--no-enable-chunked-prefill"),
        "env/ROPE_SCALING": lost("args: [--hf-overrides, '{\"rope_parameters\": {...}}'] with max_total_tokens"),
        "env/ROPE_FACTOR": lost("args: [--hf-overrides, '{\"rope_parameters\": {...}}'] with max_total_tokens"),
        "env/TOKENIZER_CONFIG_PATH": flag("--tokenizer", "a directory; --chat-template takes a template's file alone"),
        "env/MAX_TOP_N_TOKENS": flag("--max-logprobs"),
        "env/GRACEFUL_TERMINATION_TIMEOUT": flag("--shutdown-timeout", "vLLM's default is 0: open answers are cut off"),
        "env/ATTENTION": lost("vLLM chooses by itself; args: [--attention-backend, NAME] forces one of its own"),
        "env/OTLP_ENDPOINT": flag("--otlp-traces-endpoint"),
        "env/OTLP_SERVICE_NAME": Counterpart(env=lambda value: {"OTEL_SERVICE_NAME": value}),
        "env/CORS_ALLOW_ORIGIN": Counterpart(args=lambda v: ("--allowed-origins", json.dumps(v.split(",")))),
        "env/MAX_BEST_OF": lost("there is no best_of; `n` of a request has no bound of its own"),
        "env/MAX_STOP_SEQUENCES": lost("a request may have any number"),
        "env/MAX_CLIENT_BATCH_SIZE": lost("bound it in front"),
        "env/VALIDATION_WORKERS": lost("args: [--api-server-count, N] where tokenizing is what limits"),
        "env/WAITING_SERVED_RATIO": dropped("every step mixes reading and decoding: there is nothing to balance"),
        "env/MAX_WAITING_TOKENS": dropped("every step mixes reading and decoding: there is nothing to balance"),
        "env/DISABLE_GRAMMAR_SUPPORT": dropped("structured outputs are always on"),
        "env/ENABLE_PREFILL_LOGPROBS": dropped("`prompt_logprobs` of a request"),
        "env/JSON_OUTPUT": lost("VLLM_LOGGING_CONFIG_PATH names a file with a JSON formatter"),
        "env/PAYLOAD_LIMIT": lost("bound it in front"),
        "env/PROMETHEUS_PORT": dropped("/metrics is on the same port"),
        "env/USAGE_STATS": dropped("switched off by every stack that harness renders"),
        "env/DISABLE_USAGE_STATS": dropped("switched off by every stack that harness renders"),
        "env/DISABLE_CRASH_REPORTS": dropped("switched off by every stack that harness renders"),
        "env/DISABLE_CUSTOM_KERNELS": Counterpart(
            "the nearest thing", args=lambda v: ("--disable-custom-all-reduce",) if is_true(v) else ()
        ),
        "env/WATERMARK_GAMMA": lost("vLLM's --watermark is a reserve of the KV cache, not a mark in the text"),
        "env/WATERMARK_DELTA": lost("vLLM's --watermark is a reserve of the KV cache, not a mark in the text"),
        "env/TGI_WIGGLE_ROOM": dropped("cuda_memory_fraction is of the whole GPU, with nothing kept back"),
    },
    habits=(
        "When the KV cache is full, running chats are preempted and read in again instead of new ones"
        " having"
        " to wait: watch vllm:num_preemptions_total, or set the limits that `harness probe` finds.",
        "The prefix cache is on: repeated prompts measure the cache. `harness bench` sends no prompt twice and says"
        " what"
        " the cache answered.",
        "Sampling defaults come from the model's generation_config.json, else temperature 1.0; TGI is greedy unless"
        " asked. Send temperature yourself.",
        "/v1/completions generates 16 tokens where max_tokens is left out, the chat route all that is left of"
        " max_total_tokens.",
        "A prompt that is too long is refused (400), never cut.",
        "Port 8000 instead of 80 within the image (harness sets 8080), host IPC or a large /dev/shm.",
        "/health answers 200 while the engine hangs: harness waits for a generated token, your load balancer should"
        " too.",
        "SIGTERM cuts open answers off unless --shutdown-timeout says otherwise (0.21 and newer).",
        "The first start compiles and captures graphs for minutes; keep ~/.cache/vllm to save them.",
    ),
    routes=(
        "/generate, /generate_stream, /info and /chat_tokenize have no counterpart: clients use /v1/chat/completions or"
        " /v1/completions.",
        '`"model": "tgi"` in a request is refused (404): send the entry\'s repo, or add args: [--served-model-name,'
        " REPO,"
        " tgi].",
        "A full queue answers 503 instead of 429; an error after the first token comes as an event `error` under 200.",
    ),
)

GUIDES: Mapping[str, Guide] = {"tgi": FROM_TGI}
"""By the engine that an entry comes from."""
