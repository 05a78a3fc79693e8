"""The wait until a service gives a real answer, with progress by phase, and a named cause when it does not.

Readiness is an answer to a request, not a log line: TGI prints `Connected` before it binds its port, and also when
binding then fails. A service that ends while we wait fails at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.catalog.limits import Limits
from harness.engines import engine_named
from harness.engines.base import Engine, EngineInfo, Invocation, StartLog
from harness.engines.client import LOOK_TIMEOUT, Client, NoAnswer
from harness.engines.endpoint import Endpoint
from harness.engines.failure import Failure
from harness.engines.gauges import Gauges
from harness.engines.identify import asked_name, look
from harness.errors import HarnessError
from harness.stack.service import Service, State
from harness.units import format_bytes, format_duration

Say = Callable[[str], None]
_POLL = 0.1
_HEARTBEAT = 30.0  # seconds without a change after which the elapsed time is told
_DOWNLOAD_BEAT = 5.0
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
    the first answer. phases: seconds spent in each phase that was seen. cautions: of the engine.
    """

    info: EngineInfo
    limits: Limits
    log: StartLog
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


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
    """A service that was started earlier, as it is now; None when it does not answer."""
    began = time.monotonic()
    information = look(service.endpoint, LOOK_TIMEOUT)
    if information is None:
        return None
    facts = service.facts()
    engine = engine_named(facts.engine)
    log = engine.new_log()
    log.feed_all(service.log_lines())
    started_with = Invocation(facts.args, facts.environment)
    limits = engine.limits_in_force(information, log, started_with)
    cautions = tuple(engine.cautions(limits, log, started_with))
    return Ready(information, limits, log, time.monotonic() - began, cautions=cautions)


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
        facts = service.facts()
        self.engine = engine_named(facts.engine)
        self.started_with = Invocation(facts.args, facts.environment)
        self.log = self.engine.new_log()
        self.began = self.prepared = self.phase_began = self.spoke = time.monotonic()
        self.phase = self.progress = ""
        self.phases: dict[str, float] = {}
        self.bytes_before: int | None = None
        self.refusal: str | None = None

    def run(self) -> Ready:
        while True:
            self.look()
            if answers(self.service.endpoint, self.engine.health_path):
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
        if state.preparing:  # an image of many gigabytes is not a start that takes too long
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
        information = look(endpoint, LOOK_TIMEOUT)
        if information is None:
            return None
        self.refusal = self.ask_once(information)
        if self.refusal is not None:
            self.give_up_on_refusals()
            return None
        self.read_to_the_budget(information)
        self.enter("ready")
        limits = self.engine.limits_in_force(information, self.log, self.started_with)
        cautions = tuple(self.engine.cautions(limits, self.log, self.started_with))
        for caution in cautions:
            self.say(f"{self.service.name}: {caution}")
        return Ready(information, limits, self.log, self.elapsed(), self.phases, cautions)

    def ask_once(self, information: EngineInfo) -> str | None:
        """Generate one token; what went wrong, None when nothing did."""
        endpoint = self.service.endpoint
        name = asked_name(endpoint, information) or ""
        timeout = max(1.0, min(_ANSWER_TIMEOUT, self.left()))
        with Client(endpoint, timeout) as client:
            return self.engine.first_answer(client, name, timeout)

    def read_to_the_budget(self, information: EngineInfo) -> None:
        """The log may lag behind the answer by a moment, and often only there the token budget is told."""
        deadline = time.monotonic() + _LOG_LAG
        self.log.feed_all(self.service.log_lines())
        told = information.limits.max_batch_total_tokens is not None
        while not told and self.log.limits.max_batch_total_tokens is None and time.monotonic() < deadline:
            time.sleep(_POLL)
            self.log.feed_all(self.service.log_lines())

    def give_up_on_refusals(self) -> None:
        """A healthy service that refuses one token for a while will not get better by waiting."""
        self.look()
        if time.monotonic() - self.phase_began > _REFUSED_FOR:
            raise self.told(_not_serving(self.refusal, self.log, self.engine.health_path))

    def left(self) -> float:
        """Seconds of the timeout."""
        return self.timeout - (time.monotonic() - self.prepared)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def failed(self, state: State) -> StartFailed:
        time.sleep(0.2)  # the last lines of a container's log may come after its end
        self.log.feed_all(self.service.log_lines())
        failure = self.engine.explain(list(self.log.lines), state.exit_code, memory_limit_hit=state.memory_limit_hit)
        return self.told(failure)

    def out_of_time(self) -> StartFailed:
        named = self.engine.explain(list(self.log.lines))
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


def _not_serving(refusal: str | None, log: StartLog, health_path: str) -> Failure:
    return Failure(
        cause="no-answer",
        kind="crash",
        found=f"{health_path} answers 200 but generating one token failed: {refusal}",
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


def answers(endpoint: Endpoint, path: str, timeout: float = LOOK_TIMEOUT) -> bool:
    """Whether a GET of this path is answered with 200."""
    return _page(endpoint, path, timeout) is not None


def gauges_now(endpoint: Endpoint, engine: Engine, timeout: float = LOOK_TIMEOUT) -> Gauges:
    """What the engine is doing, from its pages; nothing of those that do not answer."""
    page, *others = (_page(endpoint, path, timeout) or "" for path in ("/metrics", *engine.gauge_pages))
    return engine.read_gauges(page, others)


def _page(endpoint: Endpoint, path: str, timeout: float) -> str | None:
    try:
        with Client(endpoint, timeout) as client:
            reply = client.get(path)
    except NoAnswer:
        return None
    return reply.text if reply.status == 200 else None
