"""TGI's start-up log: which phase it is in, and the limits that it nowhere else tells.

Texts are those of TGI 1.0 to 3.3.7 (launcher/src/main.rs, router/src, backends/v3/src,
server/text_generation_server). Lines come as the runtimes give them: without colours, JSON records turned into plain
ones.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

KEPT_LINES = 4000


@dataclass
class EngineLog:
    """What the log has said so far; `feed` it line by line.

    phase: starting, downloading, loading, warming up or connected. detail: the latest progress within the phase.
    max_batch_total_tokens: the token budget in force. max_batch_prefill_tokens: the launcher's own default, None when
    it was given. inferred_total_tokens: what a flash model computed although a budget was given. padded: True for a
    model without flash attention, whose budget is what was asked for; None before it is known. kv_blocks, block_size:
    of the KV cache. max_input_tokens, max_total_tokens: only where the engine chose them itself. lines: the last
    lines, oldest first.
    """

    phase: str = "starting"
    detail: str = ""
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
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def feed(self, line: str) -> bool:
        """Read one line. True when phase or detail changed."""
        self.lines.append(line)
        before = (self.phase, self.detail)
        for pattern, act in _RULES:
            match = pattern.search(line)
            if match is not None:
                act(self, match)
                break
        return (self.phase, self.detail) != before

    def feed_all(self, lines: Iterable[str]) -> bool:
        """Read several lines. True when phase or detail changed in one of them."""
        changes = [self.feed(line) for line in lines]
        return any(changes)

    def tail(self, count: int = 15) -> list[str]:
        """The last lines that are not empty."""
        return [line for line in self.lines if line.strip()][-count:]


_ORDER = ("starting", "downloading", "loading", "warming up", "connected")


def _enter(log: EngineLog, phase: str, detail: str = "") -> None:
    """Phases only go forward: lines of several processes may come in another order than they were written in."""
    if _ORDER.index(phase) >= _ORDER.index(log.phase):
        log.phase, log.detail = phase, detail


def _phase(phase: str, detail: str = "") -> Callable[[EngineLog, re.Match[str]], None]:
    def act(log: EngineLog, match: re.Match[str]) -> None:
        _enter(log, phase, match.expand(detail) if detail else "")

    return act


def _number(name: str) -> Callable[[EngineLog, re.Match[str]], None]:
    def act(log: EngineLog, match: re.Match[str]) -> None:
        setattr(log, name, int(match[1]))

    return act


def _attention(log: EngineLog, match: re.Match[str]) -> None:
    log.attention, log.prefix_caching = match[1], match[2].lower() in ("true", "1")


def _blocks(log: EngineLog, match: re.Match[str]) -> None:
    log.kv_blocks, log.block_size, log.padded = int(match[1]), int(match[2]), False


def _budget(log: EngineLog, match: re.Match[str]) -> None:
    log.max_batch_total_tokens = int(match[1])
    log.padded = bool(log.padded)


def _shard_ready(log: EngineLog, match: re.Match[str]) -> None:
    log.shards_ready += 1
    _enter(log, "loading", f"{min(log.shards_ready, log.shards)} of {log.shards} shards ready")


def _files(log: EngineLog, match: re.Match[str]) -> None:
    log.files_done, log.files_total = int(match[1]), int(match[2])
    _enter(log, "downloading", f"file {match[1]} of {match[2]}, {match[3]} to go")


def _converted(log: EngineLog, match: re.Match[str]) -> None:
    _enter(log, "downloading", f"converting to safetensors, {match[1]} of {match[2]} files done")


def _sharding(log: EngineLog, match: re.Match[str]) -> None:
    log.shards = int(match[1])


def _padded(log: EngineLog, match: re.Match[str]) -> None:
    log.padded = True


def _inferred(log: EngineLog, match: re.Match[str]) -> None:
    log.inferred_total_tokens, log.padded = int(match[1]), False


def _chunking(log: EngineLog, match: re.Match[str]) -> None:
    log.chunking = match[1] == "True"


_RULES: list[tuple[re.Pattern[str], Callable[[EngineLog, re.Match[str]], None]]] = [
    (re.compile(pattern), act)
    for pattern, act in (
        (r"Setting max batch total tokens to (\d+)", _budget),
        (r"Using attention (\S+) - Prefix caching (\w+)", _attention),
        (r"Sharding model on (\d+) processes", _sharding),
        (r"(?:Default|Setting) `max_batch_prefill_tokens` to (\d+)", _number("max_batch_prefill_tokens")),
        (r"Starting (?:check and )?download process", _phase("downloading", "checking what is there")),
        (r"Files are already present on the host", _phase("downloading", "all files are there")),
        (r"Download: \[(\d+)/(\d+)\] -- ETA: (\S+)", _files),
        (r"Convert: \[(\d+)/(\d+)\]", _converted),
        (r"Download file: (\S+)", _phase("downloading", r"\1")),
        (r"Successfully downloaded weights", _phase("downloading", "all files are there")),
        (r"Starting shard\b", _phase("loading")),
        (r"Waiting for shard to be ready", _phase("loading")),
        (r"Shard ready in ", _shard_ready),
        (r"Using prefill chunking = (True|False)", _chunking),
        (r"Starting Webserver", _phase("warming up", "web server starting")),
        (r"Warming up model", _phase("warming up")),
        (r"KV-cache blocks: (\d+), size: (\d+)", _blocks),
        (r"Inferred max batch total tokens: (\d+)", _inferred),
        (r"Model does not support automatic max batch total tokens", _padded),
        (r"Maximum input tokens defaulted to (\d+)", _number("max_input_tokens")),
        (r"Maximum total tokens defaulted to (\d+)", _number("max_total_tokens")),
        (r"(?::|INFO) Connected\s*$", _phase("connected")),
    )
]
