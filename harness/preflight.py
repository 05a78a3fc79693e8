"""May we measure at all? Who answers at an endpoint, and a list of named checks of the running service."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import requests

from harness.engines import tgi
from harness.engines.base import Endpoint, EngineInfo, EngineLimits
from harness.engines.route import TRUST, refuse_secrets
from harness.engines.session import open_session
from harness.errors import ServiceError, UsageError

_TIMEOUT = 10.0  # seconds; /info and /v1/models never wait for the model


@dataclass(frozen=True)
class Intent:
    """What the load will ask for. longest_input, longest_output: tokens; None where the lengths have no upper bound.

    concurrency: requests at once in the heaviest level; None where nothing bounds it (open loop).
    """

    api: str
    longest_input: int | None = None
    longest_output: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Check:
    """One finding. verdict: `ok`, `warn` (the run stands, mind this) or `fail` (a run would measure nothing)."""

    name: str
    verdict: str
    detail: str


def identify(endpoint: Endpoint) -> EngineInfo:
    """Who answers: TGI's /info where it is one, else the first model of /v1/models.

    Raises UsageError for a URL that is none, ServiceError where nobody answers.
    """
    if not endpoint.url.startswith(("http://", "https://")):
        raise UsageError(f"{endpoint.url!r} is no URL", advice="Write --url http://host:port.")
    refuse_secrets(endpoint.url)
    with open_session(endpoint.url) as session:
        session.headers.update(authorization(endpoint))
        info = _get_json(session, endpoint, "/info")
        if tgi.is_info(info):
            return tgi.read_info(info)  # type: ignore[arg-type]
        listed = _get_json(session, endpoint, "/v1/models")
    model = _first_model(listed)
    if model is None:
        raise ServiceError(
            "something answers, but neither /info is TGI's nor does /v1/models name a model",
            where=endpoint.url,
            advice="Check host and port.",
        )
    return EngineInfo("openai-compatible", None, model, False, EngineLimits())


def authorization(endpoint: Endpoint) -> dict[str, str]:
    """The header that carries the endpoint's key; empty without one."""
    return {"authorization": f"Bearer {endpoint.api_key.reveal()}"} if endpoint.api_key else {}


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


def tokenizer(endpoint: Endpoint) -> Callable[[str], list[tuple[int, int]]] | None:
    """Text -> characters [start, stop) of its tokens, by the service's /tokenize; None where it has none."""
    session = open_session(endpoint.url)

    def tokenize(text: str) -> list[tuple[int, int]]:
        answer = session.post(
            f"{endpoint.url}/tokenize", json={"inputs": text}, headers=authorization(endpoint), timeout=_TIMEOUT
        )
        answer.raise_for_status()
        return [(token["start"], token["stop"]) for token in answer.json()]

    try:
        return tokenize if tokenize("time year") else None
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None


def _health(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """The engine says of itself that it can generate. TGI's /health waits for the running forward, hence the time."""
    if info.engine != "tgi":
        return None
    try:
        with open_session(endpoint.url) as session:
            answer = session.get(f"{endpoint.url}/health", headers=authorization(endpoint), timeout=60)
    except requests.RequestException as error:
        return Check("health", "fail", f"/health does not answer ({type(error).__name__})")
    if answer.status_code != 200:
        return Check("health", "fail", f"/health says {answer.status_code}: the engine calls itself unhealthy")
    return Check("health", "ok", "200")


def _lengths(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """The longest prompt is within the engine's input limit, and prompt plus answer within its total."""
    limits, longest = info.limits, intent.longest_input
    if longest is None or limits.max_input_tokens is None:
        return None
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


def _permits(endpoint: Endpoint, info: EngineInfo, intent: Intent) -> Check | None:
    """More users than the engine has permits get 429 at once: that measures the limit, not the speed."""
    allowed = info.limits.max_concurrent_requests
    if allowed is None or intent.concurrency is None:
        return None
    if intent.concurrency > allowed:
        return Check(
            "permits",
            "warn",
            f"{intent.concurrency} users, but the service takes {allowed} requests at once (429 beyond)",
        )
    return Check("permits", "ok", f"{intent.concurrency} of {allowed}")


CHECKS: tuple[Callable[[Endpoint, EngineInfo, Intent], Check | None], ...] = (_health, _lengths, _permits)


def _get_json(session: requests.Session, endpoint: Endpoint, path: str) -> object:
    """The document at this path, None where the service has none."""
    try:
        answer = session.get(f"{endpoint.url}{path}", timeout=_TIMEOUT)
    except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
        raise UsageError(f"{endpoint.url!r} is no URL", advice="Write --url http://host:port.") from error
    except requests.RequestException as error:
        doubted = isinstance(error, requests.exceptions.SSLError)
        advice = TRUST if doubted else "Is the service up, and the port right?"
        raise ServiceError(f"no answer ({_reason(error)})", where=endpoint.url, advice=advice) from error
    if answer.status_code in (401, 403):
        raise UsageError(
            f"{path} answers {answer.status_code}",
            where=endpoint.url,
            advice="Set HARNESS_API_KEY to the service's key.",
        )
    try:
        return answer.json() if answer.status_code == 200 else None
    except ValueError:
        return None


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"none within {_TIMEOUT:.0f} s"
    if isinstance(error, requests.exceptions.SSLError):
        return _doubt(error)
    return "connection refused" if "refused" in str(error) else type(error).__name__


def _doubt(error: BaseException) -> str:
    """What the TLS library says, without the wrapping of the libraries above it."""
    inner: object = error
    while isinstance(inner, BaseException) and not isinstance(inner, ssl.SSLError):
        reason = getattr(inner, "reason", None)
        inner = reason if isinstance(reason, BaseException) else next(iter(inner.args), None)
    return str(getattr(inner, "verify_message", "") or inner or error)


def _first_model(document: object) -> str | None:
    """The id of the first entry of an OpenAI-style list."""
    data = document.get("data") if isinstance(document, Mapping) else None
    if isinstance(data, list) and data and isinstance(data[0], Mapping) and isinstance(data[0].get("id"), str):
        return str(data[0]["id"])
    return None
