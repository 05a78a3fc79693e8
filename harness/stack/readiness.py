"""The wait until a service gives a real answer, with progress by phase, and a named cause when it does not.

Readiness is an answer to a request, not a log line: TGI prints `Connected` before it binds its port, and also when
binding then fails. A service that ends while we wait fails at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.engines import tgi
from harness.engines.base import Endpoint, EngineInfo, EngineLimits
from harness.engines.tgi_failures import Failure, explain
from harness.engines.tgi_log import EngineLog
from harness.errors import HarnessError
from harness.stack.service import Service, State
from harness.units import format_bytes, format_duration

Say = Callable[[str], None]
_POLL = 0.1
_HEARTBEAT = 30.0  # seconds without a change after which the elapsed time is told
_DOWNLOAD_BEAT = 5.0
_PROBE_TIMEOUT = 10.0  # of one look at /health or /info
_LOG_LAG = 2.0
_REFUSED_FOR = 30.0
_ANSWER_TIMEOUT = 300.0  # of the first real answer; the first request may compile kernels


class StartFailed(HarnessError):
    """A service did not become ready, or died. failure: the named cause, with the last lines of the log."""

    def __init__(self, failure: Failure, name: str) -> None:
        self.failure = failure
        self.exit_code = failure.exit_code
        found = failure.found
        if failure.engine_exit_code is not None:
            found += f" (exit code {failure.engine_exit_code})"
        super().__init__(found, where=name, advice=failure.advice)


@dataclass(frozen=True)
class Ready:
    """A service that answered. limits: from /info, the log and the options together. seconds: from the first look to
    the first answer. phases: seconds spent in each phase that was seen.
    """

    info: EngineInfo
    limits: EngineLimits
    log: EngineLog
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)


def wait_until_ready(
    service: Service,
    *,
    timeout: float,
    say: Say = lambda text: None,
    expected: Mapping[str, float] | None = None,
    downloaded: Callable[[], int | None] = lambda: None,
) -> Ready:
    """Wait until the service answers a real request; `timeout` in seconds.

    expected: seconds that each phase took at an earlier start, told with the progress. downloaded: bytes in the model
    cache. Raises StartFailed when it ends or the time is over. Does not stop the service.
    """
    return _Wait(service, timeout, say, dict(expected or {}), downloaded).run()


def look_at(service: Service) -> Ready | None:
    """A service that was started earlier, as it is now; None when it does not answer /info."""
    began = time.monotonic()
    information = engine_info(service.endpoint)
    if information is None:
        return None
    log = EngineLog()
    log.feed_all(service.log_lines())
    limits = effective_limits(information, log, service.facts().environment)
    return Ready(information, limits, log, time.monotonic() - began)


class _Wait:
    def __init__(
        self,
        service: Service,
        timeout: float,
        say: Say,
        expected: dict[str, float],
        downloaded: Callable[[], int | None],
    ) -> None:
        self.service, self.timeout, self.say = service, timeout, say
        self.expected, self.downloaded = expected, downloaded
        self.log = EngineLog()
        self.began = self.prepared = self.phase_began = self.spoke = time.monotonic()
        self.phase = self.progress = ""
        self.phases: dict[str, float] = {}
        self.bytes_before: int | None = None
        self.refusal: str | None = None

    def run(self) -> Ready:
        while True:
            self.look()
            if answers(self.service.endpoint, "/health"):
                self.enter("first answer")
                if (ready := self.first_answer()) is not None:
                    return ready
            time.sleep(_POLL)

    def look(self) -> None:
        """Read the log, tell what changed, fail when it is over."""
        state = self.service.state()
        changed = self.log.feed_all(self.service.log_lines())
        if not state.running:
            raise self.failed(state)
        if state.preparing:  # an image of many gigabytes is no start that takes too long
            self.prepared = time.monotonic()
        if self.left() < 0:
            raise self.out_of_time()
        if self.phase != "first answer":
            self.tell(changed, state)

    def tell(self, changed: bool, state: State) -> None:
        phase = state.detail if self.log.phase == "starting" and state.detail else self.log.phase
        if phase == "connected":  # a word of the log that means little, see above
            return
        changed, self.progress = changed or state.progress != self.progress, state.progress
        if phase != self.phase:
            self.enter(phase)
        elif changed or time.monotonic() - self.spoke > (_DOWNLOAD_BEAT if phase == "downloading" else _HEARTBEAT):
            self.speak()

    def enter(self, phase: str) -> None:
        now = time.monotonic()
        if phase == self.phase:
            return
        if self.phase:
            self.phases[self.phase] = self.phases.get(self.phase, 0.0) + now - self.phase_began
        self.phase, self.phase_began = phase, now
        self.speak()

    def speak(self) -> None:
        inner = self.log.detail if self.phase == self.log.phase else self.progress
        parts = [f"{self.phase}: {inner}" if inner else self.phase]
        if self.phase == "downloading" and (rate := self.rate()):
            parts.append(rate)
        parts.append(f"{format_duration(self.elapsed())} so far" if self.elapsed() >= 1 else "")
        if (usual := self.expected.get(self.phase)) and usual >= 1:
            parts.append(f"took {format_duration(usual)} last time")
        self.spoke = time.monotonic()
        self.say(f"{self.service.name}: {', '.join(part for part in parts if part)}")

    def rate(self) -> str | None:
        """Bytes that came since the last word, and how fast."""
        now, before = self.downloaded(), self.bytes_before
        self.bytes_before = now
        if now is None or before is None or now <= before:
            return None
        per_second = (now - before) / max(time.monotonic() - self.spoke, 1e-3)
        return f"{format_bytes(now)} there, {format_bytes(per_second)}/s"

    def first_answer(self) -> Ready | None:
        """Ready when a request was answered; None when the service went away meanwhile."""
        endpoint = self.service.endpoint
        information = engine_info(endpoint)
        if information is None:
            return None
        self.refusal = ask_once(endpoint, max(1.0, min(_ANSWER_TIMEOUT, self.left())))
        if self.refusal is not None:
            self.give_up_on_refusals()
            return None
        self.read_to_the_budget(information)
        self.enter("ready")
        limits = effective_limits(information, self.log, self.service.facts().environment)
        return Ready(information, limits, self.log, self.elapsed(), self.phases)

    def read_to_the_budget(self, information: EngineInfo) -> None:
        """The log may lag behind the answer by a moment, and only there the token budget is told."""
        deadline = time.monotonic() + _LOG_LAG
        self.log.feed_all(self.service.log_lines())
        told = information.limits.max_batch_total_tokens is not None
        while not told and self.log.max_batch_total_tokens is None and time.monotonic() < deadline:
            time.sleep(_POLL)
            self.log.feed_all(self.service.log_lines())

    def give_up_on_refusals(self) -> None:
        """A healthy service that refuses one token for a while will not get better by waiting."""
        self.look()
        if time.monotonic() - self.phase_began > _REFUSED_FOR:
            raise self.told(_not_serving(self.refusal, self.log))

    def left(self) -> float:
        """Seconds of the timeout."""
        return self.timeout - (time.monotonic() - self.prepared)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def failed(self, state: State) -> StartFailed:
        time.sleep(0.2)  # the last lines of a container's log may come after its end
        self.log.feed_all(self.service.log_lines())
        failure = explain(list(self.log.lines), state.exit_code, memory_limit_hit=state.memory_limit_hit)
        return self.told(failure)

    def out_of_time(self) -> StartFailed:
        named = explain(list(self.log.lines), None)
        refused = f"; the last request for one token failed: {self.refusal}" if self.refusal else ""
        failure = Failure(
            cause="timeout",
            kind="unknown",
            found=f"not ready after {format_duration(self.timeout)}, in phase {self.phase or 'starting'!r}{refused}",
            advice="Raise the entry's `start_timeout` if it was still making progress.",
            exit_code=4,
            worth_a_retry=True,
            last_lines=named.last_lines,
        )
        return self.told(failure)

    def told(self, failure: Failure) -> StartFailed:
        """The last lines go to progress, so that the error itself stays one line."""
        tell_last_lines(failure, self.service.name, self.say)
        return StartFailed(failure, self.service.name)


def _not_serving(refusal: str | None, log: EngineLog) -> Failure:
    return Failure(
        cause="no-answer",
        kind="crash",
        found=f"healthy by its own word, but a request for one token fails: {refusal}",
        advice="See the last lines of its log.",
        exit_code=4,
        worth_a_retry=True,
        last_lines=tuple(log.tail()),
    )


def tell_last_lines(failure: Failure, name: str, say: Say) -> None:
    if not failure.last_lines:
        say(f"{name}: the log is empty")
        return
    say(f"{name}: the last lines of its log:")
    for line in failure.last_lines:
        say(f"    {line[:400]}")


def answers(endpoint: Endpoint, path: str, timeout: float = _PROBE_TIMEOUT) -> bool:
    """Whether a GET of this path is answered with 200."""
    return _get(endpoint, path, timeout) is not None


def metrics_page(endpoint: Endpoint, timeout: float = _PROBE_TIMEOUT) -> str | None:
    """The text of /metrics; None when it does not answer."""
    body = _get(endpoint, "/metrics", timeout)
    return None if body is None else body.decode("utf-8", "replace")


def engine_info(endpoint: Endpoint, timeout: float = _PROBE_TIMEOUT) -> EngineInfo | None:
    """Who answers there: TGI by its /info, another engine by /v1/models; None when neither is there."""
    document = _json(_get(endpoint, "/info", timeout))
    if isinstance(document, Mapping) and tgi.is_info(document):
        return tgi.read_info(document)
    listed = _json(_get(endpoint, "/v1/models", timeout))
    if not isinstance(listed, Mapping) or not isinstance(listed.get("data"), list):
        return None
    ids = [each.get("id") for each in listed["data"] if isinstance(each, Mapping)]
    model = next((each for each in ids if isinstance(each, str)), None)
    return EngineInfo("openai", None, model, False, EngineLimits(), dict(listed))


def ask_once(endpoint: Endpoint, timeout: float = _ANSWER_TIMEOUT) -> str | None:
    """Generate one token through TGI's own client. None when that worked, else what went wrong."""
    # Here, because it takes half a second to import, which a service that is known to answer need not cost.
    import text_generation
    from pydantic import ValidationError
    from text_generation import errors

    failures: tuple[type[Exception], ...] = (OSError, ValidationError, KeyError, ValueError, *_refused())
    client = text_generation.Client(endpoint.url, headers=_headers(endpoint), timeout=int(timeout))
    try:
        with _direct():
            client.generate("Hi", max_new_tokens=1)
    except errors.ValidationError:
        return None  # it took the request apart and held it against its limits: it is alive
    except failures as error:
        # The client posts to `/` and is strict about the answer's form; an engine may serve the named routes alone.
        return None if _generates(endpoint, timeout) else f"{type(error).__name__}: {error}"
    return None


def _generates(endpoint: Endpoint, timeout: float) -> bool:
    """Whether /generate or /generate_stream gives a token, or holds the request against its limits."""
    body = json.dumps({"inputs": "Hi", "parameters": {"max_new_tokens": 1}}).encode()
    headers = {**_headers(endpoint), "Content-Type": "application/json"}
    return any(
        any(word in answer for word in (b'"generated_text"', b'"token"', b'"validation"'))
        for route in ("/generate", "/generate_stream")
        if (answer := _get(endpoint, route, timeout, body, headers, also=422)) is not None
    )


def _refused() -> tuple[type[Exception], ...]:
    """What TGI's client raises for an answer that is no success, but for validation."""
    from text_generation import errors

    return (
        errors.GenerationError,
        errors.IncompleteGenerationError,
        errors.OverloadedError,
        errors.BadRequestError,
        errors.ShardNotReadyError,
        errors.ShardTimeoutError,
        errors.NotFoundError,
        errors.RateLimitExceededError,
        errors.NotSupportedError,
        errors.UnknownError,
    )


@contextlib.contextmanager
def _direct() -> Iterator[None]:
    """No proxy of the environment between the harness and the service: the client has no option for it. And no word
    about the client's own use of pydantic 1.
    """
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = "*"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before


def effective_limits(information: EngineInfo, log: EngineLog, options: Mapping[str, str]) -> EngineLimits:
    """What the engine allows now: its own word first, then its log, then what it was told."""

    def told(name: str) -> int | None:
        value = options.get(name, "")
        return int(value) if value.isdigit() else None

    limits = information.limits
    return replace(
        limits,
        max_input_tokens=limits.max_input_tokens or log.max_input_tokens,
        max_total_tokens=limits.max_total_tokens or log.max_total_tokens,
        max_batch_prefill_tokens=told("MAX_BATCH_PREFILL_TOKENS") or log.max_batch_prefill_tokens,
        max_batch_total_tokens=log.max_batch_total_tokens or limits.max_batch_total_tokens,
        max_concurrent_requests=limits.max_concurrent_requests or told("MAX_CONCURRENT_REQUESTS"),
        max_batch_size=limits.max_batch_size or told("MAX_BATCH_SIZE"),
    )


def _headers(endpoint: Endpoint) -> dict[str, str]:
    return {} if endpoint.api_key is None else {"Authorization": f"Bearer {endpoint.api_key.reveal()}"}


def _get(
    endpoint: Endpoint,
    path: str,
    timeout: float,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    also: int | None = None,
) -> bytes | None:
    """The body of a 200 answer, or one of status `also`, to a GET, or to a POST of `body`; None for any other end."""
    request = urllib.request.Request(endpoint.url + path, data=body, headers=dict(headers or _headers(endpoint)))
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return bytes(response.read()) if response.status == 200 else None
    except urllib.error.HTTPError as answer:
        with contextlib.closing(answer):
            return bytes(answer.read()) if answer.code == also else None
    except (OSError, http.client.HTTPException, ValueError):
        return None


# A proxy of the environment must not stand between the harness and a service on this host.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _json(body: bytes | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        return None
