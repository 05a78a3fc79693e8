"""Checks of the running service before a measurement: may we measure at all? CHECKS is the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.engines import ENGINES
from harness.engines.base import EngineInfo
from harness.engines.client import Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.errors import ServiceError, UsageError

_HEALTH_TIMEOUT = 60.0  # seconds; an engine's check may wait for the running forward


@dataclass(frozen=True)
class Intent:
    """What the load will ask for. longest_input, longest_output: tokens; None where the lengths have no upper bound.
    shortest_input: of nearly all prompts.

    concurrency: requests at once in the heaviest level; None where nothing bounds it (open loop).
    """

    api: str
    longest_input: int | None = None
    longest_output: int | None = None
    shortest_input: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Check:
    """One finding. verdict: `ok`, `warn` (the run is valid, mind this) or `fail` (a run would measure nothing)."""

    name: str
    verdict: str
    detail: str


def examine(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> list[Check]:
    """All checks, in the list's order."""
    return [finding for check in CHECKS if (finding := check(endpoint, info, intent)) is not None]


def require(endpoint: Endpoint, info: EngineInfo, intent: Intent, progress: Callable[[str], None]) -> None:
    """Say every warning; raise ServiceError or UsageError at the first check that fails."""
    for finding in examine(endpoint, info, intent):
        if finding.verdict == "warn":
            progress(f"{finding.name}: {finding.detail}")
        if finding.verdict == "fail":
            raise (ServiceError if finding.name == "health" else UsageError)(finding.detail, where=endpoint.url)


def _health(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """The engine says of itself that it can generate."""
    path = next((engine.health_path for engine in ENGINES if engine.name == info.engine), None)
    if path is None:
        return None
    try:
        with Client(endpoint, _HEALTH_TIMEOUT) as client:
            reply = client.get(path)
    except NoAnswer as error:
        return Check("health", "fail", f"{path} does not answer: {error.found}")
    if reply.status != 200:
        return Check("health", "fail", f"{path} says {reply.status}: the engine calls itself unhealthy")
    return Check("health", "ok", "200")


def _lengths(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """The longest prompt is within the engine's input limit, and prompt plus answer within its total."""
    limits, longest = info.limits, intent.longest_input
    if longest is None or limits.max_input_tokens is None:
        return None
    if intent.shortest_input is not None and intent.shortest_input > limits.max_input_tokens:
        found = f"every prompt has at least {intent.shortest_input} tokens, and the service takes"
        return Check("lengths", "fail", f"{found} {limits.max_input_tokens}. Lower --input-tokens.")
    if longest > limits.max_input_tokens:
        return Check(
            "lengths", "warn", f"prompts of up to {longest} tokens, but the service takes {limits.max_input_tokens}"
        )
    total = longest + (intent.longest_output or 0)
    if limits.max_total_tokens is not None and total > limits.max_total_tokens:
        return Check(
            "lengths",
            "warn",
            f"prompt and answer of up to {total} tokens, but the service allows {limits.max_total_tokens}",
        )
    return Check("lengths", "ok", f"up to {total} tokens")


def _concurrency(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """More users than the concurrency limit get 429 at once: that measures the limit, not the speed."""
    allowed = info.limits.max_concurrent_requests
    if allowed is None or intent.concurrency is None:
        return None
    if intent.concurrency > allowed:
        return Check(
            "concurrency",
            "warn",
            f"{intent.concurrency} users, but the service takes {allowed} requests at once (429 beyond)",
        )
    return Check("concurrency", "ok", f"{intent.concurrency} of {allowed}")


CHECKS: tuple[Callable[[Endpoint, EngineInfo, Intent], Check | None], ...] = (_health, _lengths, _concurrency)
