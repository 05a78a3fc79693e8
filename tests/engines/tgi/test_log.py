"""The start-up log of TGI, as its launcher and router print it."""

from __future__ import annotations

from harness.engines.tgi.log import TgiLog

L, R = "INFO text_generation_launcher: ", "INFO text_generation_router_v3: backends/v3/src/lib.rs:1: "

FLASH = [
    "INFO text_generation_launcher: Args {",
    '    model_id: "m",',
    "}",
    L + "Using attention flashinfer - Prefix caching true",
    L + "Sharding model on 2 processes",
    L + "Default `max_batch_prefill_tokens` to 8049",
    L + "Using default cuda graphs [1, 2, 4, 8, 16, 32]",
    "INFO download: text_generation_launcher: Starting check and download process for m",
    L + "Download file: model-00001-of-00002.safetensors",
    L + "Download: [1/2] -- ETA: 0:00:31",
    "INFO download: text_generation_launcher: Successfully downloaded weights for m",
    "INFO shard-manager: text_generation_launcher: Starting shard rank=0",
    "INFO shard-manager: text_generation_launcher: Starting shard rank=1",
    L + "Using prefill chunking = True",
    "INFO shard-manager: text_generation_launcher: Shard ready in 2.6s rank=0",
    "INFO shard-manager: text_generation_launcher: Shard ready in 2.7s rank=1",
    L + "Starting Webserver",
    R + "Warming up model",
    L + "KV-cache blocks: 120448, size: 1",
    R + "Setting max batch total tokens to 120448",
    R + "Using backend V3",
    "INFO text_generation_router_v3: backends/v3/src/main.rs:167: Maximum input tokens defaulted to 8191",
    "INFO text_generation_router_v3: backends/v3/src/main.rs:174: Maximum total tokens defaulted to 8192",
    "INFO text_generation_router::server: router/src/server.rs:2302: Connected",
]


def test_limits_of_a_flash_model() -> None:
    """Everything that only the log tells is read from it."""
    log = TgiLog()
    log.feed_all(FLASH)
    assert log.phase == "connected"
    assert (log.max_batch_total_tokens, log.max_batch_prefill_tokens) == (120448, 8049)
    assert (log.max_input_tokens, log.max_total_tokens) == (8191, 8192)
    assert (log.kv_blocks, log.block_size, log.padded) == (120448, 1, False)
    assert (log.attention, log.prefix_caching, log.chunking) == ("flashinfer", True, True)
    assert (log.shards, log.shards_ready) == (2, 2)
    assert (log.files_done, log.files_total) == (1, 2)


def test_phases_in_order() -> None:
    """Each phase is entered once, in TGI's order, and every progress inside one is told."""
    log, seen = TgiLog(), []
    for line in FLASH:
        if log.feed(line) and (not seen or seen[-1] != log.phase):
            seen.append(log.phase)
    assert seen == ["downloading", "loading", "warming up", "connected"]


def test_lines_in_another_order_do_not_turn_phases_back() -> None:
    """The shard's and the router's lines come through different pipes."""
    log = TgiLog()
    log.feed_all([R + "Warming up model", L + "Starting shard rank=1"])
    assert log.phase == "warming up"


def test_padded_model_is_known() -> None:
    """On a padded model the budget is what was asked for, and nothing protects it."""
    log = TgiLog()
    log.feed_all(
        [
            "WARN text_generation_router_v3: Model does not support automatic max batch total tokens",
            R + "Setting max batch total tokens to 16000",
        ]
    )
    assert (log.padded, log.max_batch_total_tokens) == (True, 16000)


def test_budget_that_was_asked_for_is_not_the_one_in_force() -> None:
    """A flash model warns, infers its own, and that one is set."""
    log = TgiLog()
    log.feed_all(
        [
            "WARN text_generation_router_v3: `--max-batch-total-tokens` is deprecated for Flash Attention models.",
            "WARN text_generation_router_v3: Inferred max batch total tokens: 2048",
            R + "Setting max batch total tokens to 2048",
        ]
    )
    assert (log.inferred_total_tokens, log.max_batch_total_tokens, log.padded) == (2048, 2048, False)


def test_log_of_an_old_release() -> None:
    """1.4 says the same in other words."""
    log = TgiLog()
    log.feed_all(
        [
            L + "Starting download process.",
            L + "Successfully downloaded weights.",
            L + "Starting shard",
            L + "Shard ready in 10.6s",
            L + "Starting Webserver",
            "INFO text_generation_router: router/src/main.rs:280: Warming up model",
            "INFO text_generation_router: router/src/main.rs:316: Setting max batch total tokens to 46592",
            "INFO text_generation_router: router/src/main.rs:317: Connected",
        ]
    )
    assert (log.phase, log.max_batch_total_tokens) == ("connected", 46592)


def test_user_text_is_no_log_line() -> None:
    """A prompt that mentions a connection is not taken for readiness."""
    log = TgiLog()
    log.feed(L + "generate{parameters=x}: Connected to the server")
    assert log.phase == "starting"
