"""One start of a probe: launch with a setting, wait, send the loads that the search asks for, stop, and say what was
seen. Everything that was started is stopped, whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.drive.judging import judge
from harness.drive.probe_prompts import Counter, Lengths, requests_of, token_counter
from harness.engines import APIS, engine_named, engine_of
from harness.engines.base import EngineFacts, FailedStart, FailureCause
from harness.engines.failure import Failure as EngineFailure
from harness.engines.identify import asked_name
from harness.load.burst import Burst, Patience, send_burst
from harness.probe import loads, prompts
from harness.probe.ask import Search
from harness.probe.checks import what_is_missing
from harness.probe.setting import Failure, Load, LoadResult, Outcome, Setting, Shape
from harness.serve.serving import await_ready, service_for
from harness.serve.target import Target
from harness.stack.readiness import StartFailed, answers, gauges_now
from harness.stack.service import OwnService, ServiceFacts, State
from harness.stack.shutdown import stop_in_order
from harness.terminal import Progress
from harness.units import format_duration
from harness.workload.request import Request

_STOP_GRACE = 15.0  # seconds for an engine that is idle or stuck; TGI would drain a stuck queue for 90
_LONGEST_BURST = 900.0
_STALL = 12.0  # seconds without a token for anyone, beside the time for the longest prompt
_PERMIT_PAUSES = (0.3, 1.0, 3.0)
_AFTER = 4  # tokens of a chat that is sent when others have left
_HEALTH = 10.0  # seconds; the check is a whole forward where a request failed before
_STRETCHED = (0, 2, 6, 16, 48, 96)  # answer tokens more for each chat, where some ended before the last began
_FULL = 0.995  # of a load's tokens, that must be in flight when the last prompts are read
_UNWRITTEN = 1.6  # tokens of each chat, that may be missing of it in any case
_TRIES, _PROOF_TRIES = 6, 12  # of a load that did not come about
_REFILLS = 4  # times that a load is sent of which only that is missing
_REWRITES = 2  # the same of whole answers
_CROWD_REFILLS = 2  # the same of many chats: what they held is a part of a law, of which few tell the rest


@dataclass
class CarryOver:
    """What one start has shown that the next may use."""

    ruler: prompts.Ruler = field(default_factory=prompts.Ruler)
    begun: int = 0  # prompts that were made so far
    read_rate: float | None = None  # prompt tokens per second, of the slowest load
    lengths: Lengths = field(default_factory=Lengths)


def run_start(
    search: Search,
    setting: Setting,
    model: Model,
    target: Target,
    seen: CarryOver,
    progress: Progress,
    note: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Start the model with this setting and do what the search asks. note: gets the outcome before the engine is
    stopped, which may take long and be interrupted. Raises what cannot be the engine's fault: a program that is not
    there, a port that is taken, Ctrl-C.
    """
    engine = engine_of(model)
    changes = dict(engine.exploring(proving=setting.purpose == "verify") if search.joins_at_once(setting) else {})
    if setting.prefix_caching is False:
        changes |= engine.without_prefix_cache(engine.version(model.engine.version))
    service = _Listening(service_for(with_setting(model, setting), target, changes=changes))
    try:
        outcome = _outcome(search, setting, model, service, seen, progress)
        note(outcome)
        return outcome
    finally:
        stop_in_order(service, _STOP_GRACE)


def _outcome(
    search: Search, setting: Setting, model: Model, service: _Listening, seen: CarryOver, progress: Progress
) -> Outcome:
    began = time.monotonic()
    try:
        service.start()
        ready = await_ready(service, model, progress)
    except StartFailed as failed:
        meaning = service.engine.failed_start(failed.failure, service.log)
        why = start_failure(failed.failure, meaning)
        return Outcome(setting, meaning.facts, False, why, (), time.monotonic() - began)
    told = service.engine.facts(ready.info, service.log, ready.limits, setting, model)
    told = replace(told, image=service.facts().image, seconds=ready.seconds)
    service.endpoint = replace(service.endpoint, model_name=asked_name(service.endpoint, ready.info))
    started = search.completed(told, setting)
    _tell(started, progress)
    results, failure = _Loading(search, setting, started, service, seen, progress).run()
    return Outcome(setting, started, True, failure, tuple(results), time.monotonic() - began)


def with_setting(model: Model, setting: Setting) -> Model:
    """The entry with the limits of the setting and no others, not in its variables or arguments either."""
    limits = Limits(**{each.name: getattr(setting, each.name) for each in fields(Limits)})
    if setting.cuda_memory_fraction is None:
        limits = replace(limits, cuda_memory_fraction=model.limits.cuda_memory_fraction)
    twins = engine_of(model).accepts.twins
    ours = {name for name, path in twins.items() if path[0] == "limits" and path[1] != "cuda_memory_fraction"}
    if setting.cuda_memory_fraction is not None:  # over the entry's own variable too, which the search departs from
        ours |= {name for name, path in twins.items() if path == ("limits", "cuda_memory_fraction")}
    environment = {name: value for name, value in model.env.items() if name not in ours}
    own = {each.name for each in fields(Limits)} - (
        {"cuda_memory_fraction"} if setting.cuda_memory_fraction is None else set()
    )
    args = engine_of(model).without_limits(model.engine.args, own)
    return replace(model, limits=limits, env=environment, engine=replace(model.engine, args=args))


class _Listening:
    """A service whose log is also kept here: why a start failed is read from the whole of it."""

    def __init__(self, service: OwnService) -> None:
        self._service = service
        self.name = service.name
        self.engine = engine_named(service.facts().engine)
        self.log = self.engine.new_log()
        self.endpoint = service.endpoint

    def start(self) -> None:
        self._service.start()

    def state(self) -> State:
        return self._service.state()

    def log_lines(self) -> Iterator[str]:
        for line in self._service.log_lines():
            self.log.feed(line)
            yield line

    def stop(self, grace: float = 100.0) -> None:
        self._service.stop(grace)

    def facts(self) -> ServiceFacts:
        return self._service.facts()

    def drain(self) -> None:
        for _ in self.log_lines():
            pass


def start_failure(failure: EngineFailure, meaning: FailedStart) -> Failure:
    """The engine's failure as the search sees it."""
    text = f"{failure.found}. {failure.advice}" if failure.advice else failure.found
    return Failure(meaning.stage, meaning.cause, text, failure.exit_code, meaning.limit, meaning.fraction)


def _tell(started: EngineFacts, progress: Progress) -> None:
    if started.kind == "pool":
        parts = f", cut into {started.rows:,} equal shares" if started.split and started.rows else ""
        progress(f"the engine told a pool of {started.budget or 0:,} tokens of KV cache, in which chats grow{parts}")
    elif started.kind == "flash":
        chunked = f"chunked prefill is {'on' if started.chunking else 'off'}"
        progress(f"flash attention: the engine measured {started.budget:,} tokens of KV cache itself; {chunked}")
    elif started.kind == "padded":
        progress("no flash attention: the engine does not check its memory, so its budget is searched under load")
    else:
        progress("the engine tells no token budget of its own, so it is searched under load")


class _Loading:
    """The loads of one start, until the search has enough or the engine dies."""

    def __init__(
        self,
        search: Search,
        setting: Setting,
        started: EngineFacts,
        service: _Listening,
        seen: CarryOver,
        progress: Progress,
    ) -> None:
        self.search, self.setting, self.started, self.service = search, setting, started, service
        self.seen, self.progress = seen, progress
        self.api = APIS[service.engine.bare_api]
        self.looked = 0.0
        self.running = True
        self.sent = 0
        self.streams = True
        self.counter: Counter | None = None  # of a tokenizer whose words do not add up: each prompt is counted

    def run(self) -> tuple[list[LoadResult], Failure | None]:
        results: list[LoadResult] = []
        if self.search.next_load(self.setting, self.started, results) is not None:
            self._calibrate()
        while (load := self.search.next_load(self.setting, self.started, results)) is not None:
            results.append(self._send(load))
            self._say(results[-1])
            if results[-1].verdict == "died":
                return results, self._death()
        return results, None

    def _calibrate(self) -> None:
        if not self.seen.ruler.exact:
            most = min(self.started.max_input_tokens or 400, 400)
            with token_counter(self.service.endpoint, self.api) as counter:
                self.seen.ruler = counter.ruler(short=max(2, most // 10), long=max(4, most * 3 // 4))
                self.counter = counter if counter.by_route and not self.seen.ruler.exact else None

    def _send(self, load: Load) -> LoadResult:
        """The load's result; places that earlier clients still hold for a moment are waited for."""
        for pause in _PERMIT_PAUSES:
            result = self._as_meant(load)
            if result.verdict == "stalled" and load.kind != "alike" and self._may_be_pinned():
                self.progress(f"  {load.name}: stalled with nothing running; once more with other words")
                result, _ = self._send_once(load)
            if result.verdict != "refused" or result.refused <= load.expected_rejections:
                break
            time.sleep(pause)
        return result

    def _as_meant(self, load: Load) -> LoadResult:
        """The load's result, sent again where it did not come about as it says: on a slow machine some chats may end
        before others begin. Of those that held, the one that had most in flight. A boundary needs it to the last
        token; a proof is content with what its check demands.
        """
        best: LoadResult | None = None
        best_of = (False, 0)
        flash, proof = self.started.kind == "flash", self.setting.purpose == "verify"
        tried, stretched, refills = load, 0, 0
        for _ in range(_PROOF_TRIES if proof else _TRIES):
            result, as_meant = self._send_once(tried)
            if result.verdict != "held":
                return result
            missing = what_is_missing(result, flash=flash) is not None
            if best is None or (not missing, result.carried or 0) > best_of:
                best, best_of = result, (not missing, result.carried or 0)
            if as_meant and not missing and (proof or _is_filled(result)):
                return result
            if missing and load.kind != "write":  # those are as long as they may be, and take the longest
                stretched = (stretched + 1) % len(_STRETCHED)
                tried = self._lasting(load, _STRETCHED[stretched])
            elif (refills := refills + 1) == _refills(load, proof=proof):
                break
        assert best is not None
        return best

    def _lasting(self, load: Load, more: int) -> Load:
        """The load with this many answer tokens more for each chat: of a budget that is filled, instead of prompt."""
        started, setting = self.started, self.setting
        total = setting.max_total_tokens or started.max_total_tokens or 0
        if load.kind == "fill":
            return loads.stretched(load, more, total) if len(load.waves) == 1 else load
        room = (started.usable if started.kind == "flash" else setting.max_batch_total_tokens) or 0
        long = load.longest if load.kind == "onto" else 0
        most = (room - long) // max(1, load.rows) // started.block_size * started.block_size
        return loads.lasting(load, more, min(total, most))

    def _send_once(self, load: Load) -> tuple[LoadResult, bool]:
        """Its result, and whether it came about as the load says."""
        waves = self._requests(load)
        before = self._preempted()
        burst = send_burst(
            self.service.endpoint,
            self.api,
            waves,
            alive=self._alive,
            leave_after_tokens=load.leave_after_tokens,
            waiting=load.queued,
            min_tokens_before_next_wave=load.min_tokens_before_next_wave,
            patience=self._patience(load),
            stream=self.streams,
            extras=self.service.engine.extras,
        )
        self.seen.lengths.hear(burst.answers)
        result = judge(load, burst)
        if result.verdict != "died" and not self.service.state().running:
            result = replace(result, verdict="died")
        if result.verdict in ("stalled", "failed") and self._is_dead(result):
            # Of one that stopped, what was in flight with the last tokens may be what stopped it.
            result = replace(result, verdict="died", carried=None if result.verdict == "stalled" else result.carried)
        elif result.verdict == "held" and any(each.left for each in burst.answers):
            result = self._looked_after(result)
        result = self._whole_answers(self._held_without_preemption(result, before), burst)
        self._learn_rate(load, burst)
        unseen = load.expected_rejections > 0 and result.refused == 0  # some had ended before the last came
        return result, not unseen

    def _may_be_pinned(self) -> bool:
        """Whether a queue that stands still may be held by its own lookup in the prefix cache, which no lack of memory
        is: requests wait and nothing runs. A further small request lets the engine look at its queue again.
        """
        if not self.started.prefix_caching:
            return False
        gauges = gauges_now(self.service.endpoint, self.service.engine)
        if gauges.running or (gauges.waiting is not None and gauges.waiting < 1):
            return False
        self._one_more()
        return True

    def _preempted(self) -> float | None:
        """Chats that the engine has put back since its start; None where it never does, or does not count."""
        if self.service.engine.on_full_cache not in ("preempts", "retracts"):
            return None
        return gauges_now(self.service.endpoint, self.service.engine).preempted

    def _whole_answers(self, result: LoadResult, burst: Burst) -> LoadResult:
        """Where an engine gives answers of the length that was asked, a shorter one was cut off by a limit."""
        if result.verdict != "held" or not self.service.engine.extras.sets_length:
            return result
        told = [each for each in burst.answers if each.ok and not each.left and each.output_tokens is not None]
        short = [each for each in told if (each.output_tokens or 0) < each.request.max_new_tokens]
        if not short:
            return result
        words = f"{len(short)} answers ended before their {short[0].request.max_new_tokens:,} tokens"
        return replace(result, verdict="failed", reason=words)

    def _held_without_preemption(self, result: LoadResult, before: float | None) -> LoadResult:
        """A load has held when the engine put nobody back meanwhile, whatever the client saw."""
        after = self._preempted() if before is not None else None
        if before is None or after is None:
            return result
        count = int(after - before)
        result = replace(result, preempted=count)
        if count == 0 or result.verdict != "held":
            return result
        return replace(result, verdict="preempted", reason=f"the engine put running chats back {count} times")

    def _looked_after(self, result: LoadResult) -> LoadResult:
        """A load that was left early has held when the engine still serves afterwards.

        It returns when the chats that were left are surely off the engine, so that they neither weigh on the next load
        nor take places that it needs: an engine drops a chat when it cannot send the next token.
        """
        for pause in (*_PERMIT_PAUSES, None):
            burst = self._one_more()
            if burst.ending != "done":
                return replace(result, verdict="died", reason="it gave no token any more after that", carried=None)
            if pause is None or burst.answers[0].error_kind != "overloaded":
                break
            time.sleep(pause)
        return result

    def _one_more(self) -> Burst:
        """A short chat by itself, to see whether the engine still serves."""
        one = Load("after", ((Shape(2, min(_AFTER, (self.started.max_total_tokens or 4) - 2)),),))
        return send_burst(
            self.service.endpoint,
            self.api,
            self._requests(one),
            alive=self._alive,
            patience=self._patience(one),
            extras=self.service.engine.extras,
        )

    def _is_dead(self, result: LoadResult) -> bool:
        """Whether an engine whose process still runs will never serve again: it ran out of memory, or is not healthy,
        or is one without blocks to wait for, which nothing but itself can stop.
        """
        if "out of memory" in (result.reason or ""):
            return True
        if result.verdict == "stalled" and self.started.kind not in ("flash", "pool"):
            return True
        if not answers(self.service.endpoint, self.service.engine.health_path, _HEALTH):
            return True
        # Requests that have gone wait no longer, so a short one is served, if anything is.
        return result.verdict == "stalled" and self._one_more().ending != "done"

    def _requests(self, load: Load) -> list[list[Request]]:
        self.sent += 1
        salt, first = f"{self.sent} {load.name}", self._first_words(load)
        return requests_of(
            load, self.seen.ruler, salt=salt, first=first, counter=self.counter, lengths=self.seen.lengths
        )

    def _first_words(self, load: Load) -> int:
        """Long prompts never begin with a word that a long one had not long ago: the engine's lookup of the one would
        pin the blocks of the other.
        """
        first = self.seen.begun
        self.seen.begun += len(load.shapes)
        return first

    def _alive(self) -> bool:
        """Looked at ten times a second at most; the log is read on the way, so that nothing ever blocks."""
        now = time.monotonic()
        if now - self.looked > 0.1:
            self.looked = now
            self.service.drain()
            self.running = self.service.state().running
        return self.running

    def _patience(self, load: Load) -> Patience:
        """Enough for the longest prompt at a quarter of the slowest speed seen; at first at 50 tokens a second."""
        rate = self.seen.read_rate or 200.0
        return Patience(stall=_STALL + 4 * load.longest / rate, total=_LONGEST_BURST)

    def _learn_rate(self, load: Load, burst: Burst) -> None:
        """From the request of each load that waited least for others."""
        reads = [
            each.request.input_tokens / (each.token_at[0] - each.sent_at)
            for each in burst.answers
            if each.token_at and each.sent_at is not None and each.token_at[0] > each.sent_at
        ]
        if reads and load.longest >= 256:
            rate = max(reads)
            self.seen.read_rate = rate if self.seen.read_rate is None else min(self.seen.read_rate, rate)

    def _say(self, result: LoadResult) -> None:
        what = f"  {result.load.name}: {result.verdict}"
        if result.reason and result.verdict != "held":
            what += f" ({result.reason[:120]})"
        if result.verdict == "held" and result.itl_p95 is not None:
            what += f", TTFT p95 {format_duration(result.ttft_p95)}, ITL p95 {format_duration(result.itl_p95)}"
        self.progress(what)

    def _death(self) -> Failure:
        deadline = time.monotonic() + 3.0
        while self.service.state().running and time.monotonic() < deadline:
            time.sleep(0.05)
        self.service.drain()
        named = self.service.engine.explain(list(self.service.log.lines), self.service.state().exit_code, serving=True)
        cause: FailureCause = "memory" if named.kind == "memory" else "other"
        if cause == "other" and self.service.state().running:
            return Failure("under load", "hang", "it took requests and gave no token any more", 4)
        return Failure("under load", cause, named.found, 4)


def _refills(load: Load, *, proof: bool) -> int:
    """Times that a load is sent which longer answers do not mend. Where chats write whole answers and did not all run
    together, it is rather the engine that keeps them apart than the client that was late.
    """
    if load.kind == "write" and len(load.waves) == 1:
        return _REWRITES
    return _REFILLS if load.chats is None or proof else _CROWD_REFILLS


def _is_filled(result: LoadResult) -> bool:
    """Whether a load that is to fill a budget did, but for the token or two that each chat always has left to write."""
    load = result.load
    if load.target_tokens_in_flight is None:
        return True
    return (result.carried or 0) >= min(_FULL * load.size, load.size - _UNWRITTEN * load.rows)
