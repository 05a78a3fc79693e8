"""Reads TGI's start-up log: its phase, and the limits that are told nowhere else.

Texts are those of TGI 1.0 to 3.3.7 (launcher/src/main.rs, router/src, backends/v3/src,
server/text_generation_server). Lines come as the runtimes give them: without colours, JSON records turned into plain
ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.catalog.limits import Limits
from harness.engines.base import StartLog
from harness.engines.log_rules import apply, number, phase, rules


@dataclass(eq=False)
class TgiLog(StartLog):
    """What the log has said so far.

    max_batch_total_tokens: the token budget in force. max_batch_prefill_tokens: the launcher's own default, None when
    it was given. inferred_total_tokens: what a flash model computed although a budget was given. padded: True for a
    model without flash attention, whose budget is what was asked for; None before it is known. kv_blocks, block_size:
    of the KV cache. max_input_tokens, max_total_tokens: only where the engine chose them itself.
    """

    max_batch_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    inferred_total_tokens: int | None = None
    padded: bool | None = None
    kv_blocks: int | None = None
    block_size: int | None = None
    attention: str | None = None
    prefix_caching: bool | None = None
    chunking: bool | None = None
    shards: int = 1
    shards_ready: int = 0
    files_total: int | None = None
    files_done: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def limits(self) -> Limits:
        return Limits(
            max_input_tokens=self.max_input_tokens,
            max_total_tokens=self.max_total_tokens,
            max_batch_prefill_tokens=self.max_batch_prefill_tokens,
            max_batch_total_tokens=self.max_batch_total_tokens,
        )

    def understand(self, line: str) -> None:
        apply(self, line, _RULES)


def _attention(log: TgiLog, match: re.Match[str]) -> None:
    log.attention, log.prefix_caching = match[1], match[2].lower() in ("true", "1")


def _blocks(log: TgiLog, match: re.Match[str]) -> None:
    log.kv_blocks, log.block_size, log.padded = int(match[1]), int(match[2]), False


def _budget(log: TgiLog, match: re.Match[str]) -> None:
    log.max_batch_total_tokens = int(match[1])
    log.padded = bool(log.padded)


def _shard_ready(log: TgiLog, match: re.Match[str]) -> None:
    log.shards_ready += 1
    log.enter("loading", f"{min(log.shards_ready, log.shards)} of {log.shards} shards ready")


def _files(log: TgiLog, match: re.Match[str]) -> None:
    log.files_done, log.files_total = int(match[1]), int(match[2])
    log.enter("downloading", f"file {match[1]} of {match[2]}, {match[3]} to go")


def _converted(log: TgiLog, match: re.Match[str]) -> None:
    log.enter("downloading", f"converting to safetensors, {match[1]} of {match[2]} files done")


def _sharding(log: TgiLog, match: re.Match[str]) -> None:
    log.shards = int(match[1])


def _padded(log: TgiLog, match: re.Match[str]) -> None:
    log.padded = True


def _inferred(log: TgiLog, match: re.Match[str]) -> None:
    log.inferred_total_tokens, log.padded = int(match[1]), False


def _chunking(log: TgiLog, match: re.Match[str]) -> None:
    log.chunking = match[1] == "True"


_RULES = rules(
    (r"Setting max batch total tokens to (\d+)", _budget),
    (r"Using attention (\S+) - Prefix caching (\w+)", _attention),
    (r"Sharding model on (\d+) processes", _sharding),
    (r"(?:Default|Setting) `max_batch_prefill_tokens` to (\d+)", number("max_batch_prefill_tokens")),
    (r"Starting (?:check and )?download process", phase("downloading", "checking what is there")),
    (r"Files are already present on the host", phase("downloading", "all files are there")),
    (r"Download: \[(\d+)/(\d+)\] -- ETA: (\S+)", _files),
    (r"Convert: \[(\d+)/(\d+)\]", _converted),
    (r"Download file: (\S+)", phase("downloading", r"\1")),
    (r"Successfully downloaded weights", phase("downloading", "all files are there")),
    (r"Starting shard\b", phase("loading")),
    (r"Waiting for shard to be ready", phase("loading")),
    (r"Shard ready in ", _shard_ready),
    (r"Using prefill chunking = (True|False)", _chunking),
    (r"Starting Webserver", phase("warming up", "web server starting")),
    (r"Warming up model", phase("warming up")),
    (r"KV-cache blocks: (\d+), size: (\d+)", _blocks),
    (r"Inferred max batch total tokens: (\d+)", _inferred),
    (r"Model does not support automatic max batch total tokens", _padded),
    (r"Maximum input tokens defaulted to (\d+)", number("max_input_tokens")),
    (r"Maximum total tokens defaulted to (\d+)", number("max_total_tokens")),
    (r"(?::|INFO) Connected\s*$", phase("connected")),
)
