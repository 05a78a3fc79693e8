"""One start of a probe: launch with a setting, wait, send the loads that the search asks for, stop, and say what was
seen. Everything that was started is stopped, whatever happens.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from harness.catalog.models import Limits, Model
from harness.commands.serving import await_ready, service_for
from harness.commands.target import Target
from harness.engines import APIS
from harness.engines.base import Endpoint
from harness.engines.tgi import input_limit_name, parse_version
from harness.engines.tgi_failures import Failure as EngineFailure
from harness.engines.tgi_failures import explain
from harness.engines.tgi_log import EngineLog
from harness.load.burst import Answered, Burst, Patience, fetch, send_burst
from harness.probe import prompts
from harness.probe.search import Search
from harness.probe.setting import Cause, Failure, Load, LoadResult, Outcome, Setting, Shape, Stage, Started, Verdict
from harness.stack.ending import stop_in_order
from harness.stack.readiness import Ready, StartFailed
from harness.stack.service import OwnService, ServiceFacts, State
from harness.stats.quantile import quantile
from harness.terminal import Progress
from harness.units import format_duration
from harness.workload.request import Request

_STOP_GRACE = 15.0  # seconds for an engine that is idle or stuck; TGI would drain a stuck queue for 90
_LONGEST_BURST = 900.0
_STALL = 12.0  # seconds without a token for anyone, beside the time for the longest prompt
_PERMIT_PAUSES = (0.3, 1.0, 3.0)
_HEALTH = 10.0  # seconds; the check is a whole forward where a request failed before
_TRIES_TOGETHER = 3  # of a load whose last prompts must be read in as one
_TOGETHER = 0.35  # of the first one's wait, within which the others' first tokens must come
_BLOCK_SIZES = {"flashinfer": 1, "flashdecoding": 256, "flashdecoding-ipex": 64, "paged": 16}
_OUR_NAMES = (
    "MAX_INPUT_TOKENS",
    "MAX_INPUT_LENGTH",
    "MAX_TOTAL_TOKENS",
    "MAX_BATCH_PREFILL_TOKENS",
    "MAX_BATCH_TOTAL_TOKENS",
    "MAX_CONCURRENT_REQUESTS",
    "MAX_BATCH_SIZE",
)
_MOVE_MEMORY = (
    "ATTENTION",
    "CUDA_GRAPHS",
    "CUDA_MEMORY_FRACTION",
    "DTYPE",
    "ENABLE_PREFILL_LOGPROBS",
    "KV_CACHE_DTYPE",
    "LORA_ADAPTERS",
    "PREFILL_CHUNKING",
    "PREFIX_CACHING",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SPECULATE",
    "TGI_WIGGLE_ROOM",
    "USE_FLASH_ATTENTION",
    "USE_PREFIX_CACHING",
)


@dataclass
class Seen:
    """What one start has shown that the next may use."""

    ruler: prompts.Ruler = field(default_factory=prompts.Ruler)


def run_start(
    search: Search,
    setting: Setting,
    model: Model,
    target: Target,
    seen: Seen,
    progress: Progress,
    note: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Start the model with this setting and do what the search asks. note: gets the outcome before the engine is
    stopped, which may take long and be interrupted. Raises what cannot be the engine's fault: a program that is not
    there, a port that is taken, Ctrl-C.
    """
    service = _Listening(service_for(with_setting(model, setting), target, changes=_changes(model, setting)))
    try:
        outcome = _outcome(search, setting, model, service, seen, progress)
        note(outcome)
        return outcome
    finally:
        stop_in_order(service, _STOP_GRACE)


def _outcome(
    search: Search, setting: Setting, model: Model, service: _Listening, seen: Seen, progress: Progress
) -> Outcome:
    began = time.monotonic()
    try:
        service.start()
        ready = await_ready(service, model, progress)
    except StartFailed as failed:
        why = start_failure(failed.failure, service.log)
        return Outcome(setting, _guess(service.log, failed.failure), False, why, (), time.monotonic() - began)
    seen_now = replace(facts_of(ready, service.log, setting, model), image=service.facts().image)
    started = search.completed(seen_now, setting)
    _tell(started, progress)
    loads, failure = _Loading(search, setting, started, service, seen, progress).run()
    return Outcome(setting, started, True, failure, tuple(loads), time.monotonic() - began)


def with_setting(model: Model, setting: Setting) -> Model:
    """The entry with the limits of the setting and no others."""
    limits = Limits(
        max_input_tokens=setting.max_input_tokens,
        max_total_tokens=setting.max_total_tokens,
        max_batch_prefill_tokens=setting.max_batch_prefill_tokens,
        max_batch_total_tokens=setting.max_batch_total_tokens,
        max_concurrent_requests=setting.max_concurrent_requests,
        max_batch_size=setting.max_batch_size,
        cuda_memory_fraction=setting.memory_fraction or model.limits.cuda_memory_fraction,
    )
    environment = {name: value for name, value in model.env.items() if name not in _OUR_NAMES}
    return replace(model, limits=limits, env=environment)


def beside_limits(model: Model) -> dict[str, str]:
    """What else of the entry moves memory, or how the engine reads prompts: without it the limits would not hold."""
    own = {
        "DTYPE": model.dtype,
        "KV_CACHE_DTYPE": model.kv_cache_dtype,
        "CUDA_MEMORY_FRACTION": model.limits.cuda_memory_fraction,
    }
    kept = {name: value for name, value in model.env.items() if name in _MOVE_MEMORY}
    return {name: f"{value:g}" if isinstance(value, float) else value for name, value in own.items() if value} | kept


def _changes(model: Model, setting: Setting) -> dict[str, str]:
    # Over the entry's own variable too, which is what the search departs from.
    changes = {} if setting.memory_fraction is None else {"CUDA_MEMORY_FRACTION": f"{setting.memory_fraction:g}"}
    if setting.purpose != "verify":
        # Without chunking a waiting prompt joins late; while a boundary is sought it should join a full batch at once.
        changes["WAITING_SERVED_RATIO"] = "0"
    return changes


class _Listening:
    """A service whose log is also kept here: why a start failed is read from the whole of it."""

    def __init__(self, service: OwnService) -> None:
        self._service = service
        self.name, self.endpoint = service.name, service.endpoint
        self.log = EngineLog()

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


_KINDS: Mapping[str, Cause] = {
    "memory": "memory",
    "entry": "argument",
    "limits": "argument",
    "machine": "missing",
    "download": "other",
    "crash": "other",
    "unknown": "other",
}
_BUDGET_CAUSES = ("total-above-memory", "prefill-above-budget", "total-above-budget")


def start_failure(failure: EngineFailure, log: EngineLog) -> Failure:
    """The engine's failure as the search sees it: how far it came, and whether other limits can mend it."""
    warmed = log.phase in ("warming up", "connected")
    stage: Stage = "warm-up" if warmed else "launch" if log.phase == "starting" else "load"
    cause = _KINDS[failure.kind]
    limit = None
    if failure.cause in _BUDGET_CAUSES:
        cause, stage = "budget", "limits"
        given = re.search(r"Given: \d+ and (\d+)", failure.line or "")
        limit = int(given[1]) if given else None
    elif failure.cause == "timeout":
        cause = "hang"
    elif failure.cause == "warmup-memory":
        stage = "warm-up"
    elif failure.worth_a_retry and not (cause == "memory" and warmed):
        cause = "other"
    return Failure(stage, cause, _sentence(failure), failure.exit_code, limit)


def _sentence(failure: EngineFailure) -> str:
    return f"{failure.found}. {failure.advice}" if failure.advice else failure.found


def _guess(log: EngineLog, failure: EngineFailure) -> Started | None:
    """What a failed start still told: the prefill budget it failed at, and how the model reads prompts."""
    match = re.search(r"handle (\d+) prefill tokens", failure.line or "")
    prefill = int(match[1]) if match else log.max_batch_prefill_tokens
    if prefill is None and log.chunking is None:
        return None
    return Started("padded" if log.padded else "flash", bool(log.chunking), prefill_tokens=prefill)


def facts_of(ready: Ready, log: EngineLog, setting: Setting, model: Model) -> Started:
    """What a start that came up shows of the engine, from its log and /info."""
    limits = ready.limits
    budget = log.max_batch_total_tokens or ready.info.limits.max_batch_total_tokens or log.inferred_total_tokens
    block_size = log.block_size or _BLOCK_SIZES.get(log.attention or "", 1)
    if log.kv_blocks and not budget:
        budget = log.kv_blocks * block_size
    flash = bool(log.kv_blocks or log.inferred_total_tokens)
    if log.padded:
        kind = "padded"
    elif flash or (budget is not None and budget != setting.max_batch_total_tokens):
        kind = "flash"
    else:
        kind = "unchecked"
    prefill = setting.max_batch_prefill_tokens or log.max_batch_prefill_tokens or limits.max_batch_prefill_tokens
    if kind == "unchecked" and budget is None and _chunks(log, limits.max_total_tokens, prefill, setting):
        # It chose more in all than it reads at once, as only block-allocated engines do: what it chose is there.
        kind, budget = "flash", limits.max_total_tokens
    return Started(
        kind=kind,  # type: ignore[arg-type]
        chunking=_chunks(log, limits.max_total_tokens, prefill, setting) if kind == "flash" else False,
        budget=budget,
        block_size=block_size if kind == "flash" else 1,
        blocks=log.kv_blocks,
        prefill_tokens=prefill or _default_prefill(limits.max_total_tokens, kind),
        max_input_tokens=limits.max_input_tokens,
        max_total_tokens=limits.max_total_tokens,
        max_concurrent_requests=limits.max_concurrent_requests,
        prefix_caching=bool(log.prefix_caching),
        speculate=int(model.env.get("SPECULATE", "0") or 0),
        version=ready.info.version,
        emulated=ready.info.emulated,
        seconds=ready.seconds,
    )


def _chunks(log: EngineLog, total: int | None, prefill: int | None, setting: Setting) -> bool:
    """Whether prompts are read in pieces: by its own word, else by a total of its own choice that one piece cannot
    hold.
    """
    if log.chunking is not None:
        return log.chunking
    if any("supports prefill chunking" in line for line in log.lines):
        return True
    return setting.max_total_tokens is None and total is not None and total > (prefill or 4096)


def _default_prefill(total: int | None, kind: str) -> int:
    """A padded model that chooses its own limits has as many tokens in all as in one prefill (models/model.py:132)."""
    return total if kind != "flash" and total else 4096


def _tell(started: Started, progress: Progress) -> None:
    if started.kind == "flash":
        how = "reads prompts in pieces" if started.chunking else "reads a prompt in one piece"
        progress(f"flash attention: the engine measured {started.budget:,} tokens of KV cache itself; it {how}")
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
        started: Started,
        service: _Listening,
        seen: Seen,
        progress: Progress,
    ) -> None:
        self.search, self.setting, self.started, self.service = search, setting, started, service
        self.seen, self.progress = seen, progress
        self.read_rate: float | None = None  # prompt tokens per second, of the slowest load
        self.looked = 0.0
        self.running = True
        self.sent = 0
        self.streams = True

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
            self.seen.ruler = prompts.measure(self._count, short=max(2, most // 10), long=max(4, most * 3 // 4))

    def _count(self, text: str) -> int | None:
        return count_tokens(self.service.endpoint, text)

    def _send(self, load: Load) -> LoadResult:
        """The load's result; permits that earlier clients still hold for a moment are waited for."""
        for pause in _PERMIT_PAUSES:
            for _ in range(_TRIES_TOGETHER):
                result, as_meant = self._send_once(load)
                if as_meant or result.verdict != "held":
                    break
            if result.verdict != "refused" or result.refused <= load.excess:
                break
            time.sleep(pause)
        return result

    def _send_once(self, load: Load) -> tuple[LoadResult, bool]:
        """Its result, and whether its last prompts were read in as the load says."""
        waves = self._requests(load)
        burst = send_burst(
            self.service.endpoint,
            APIS["tgi"],
            waves,
            alive=self._alive,
            stay=load.stay,
            ripe=load.ripe,
            patience=self._patience(load),
            stream=self.streams,
        )
        result = judge(load, burst)
        if result.verdict != "died" and not self.service.state().running:
            result = replace(result, verdict="died")
        if result.verdict in ("stalled", "failed") and self._is_dead(result):
            result = replace(result, verdict="died")
        elif result.verdict == "held" and load.aim is not None and load.stay is not None:
            result = self._looked_after(result)
        self._learn_rate(load, burst)
        return result, _read_together(load, burst)

    def _looked_after(self, result: LoadResult) -> LoadResult:
        """A load that was left early has held when the engine still serves afterwards."""
        one = Load("after", ((Shape(2, 2),),))
        burst = send_burst(
            self.service.endpoint, APIS["tgi"], self._requests(one), alive=self._alive, patience=self._patience(one)
        )
        if burst.ending == "done":
            return result
        return replace(result, verdict="died", reason="it gave no token any more after that")

    def _is_dead(self, result: LoadResult) -> bool:
        """Whether an engine whose process still runs will never serve again: it ran out of memory, or is not healthy,
        or is one without blocks to wait for, which nothing but itself can stop.
        """
        if "out of memory" in (result.reason or ""):
            return True
        if result.verdict == "stalled" and self.started.kind != "flash":
            return True
        return fetch(self.service.endpoint, "GET", "/health", timeout=_HEALTH) is None

    def _requests(self, load: Load) -> list[list[Request]]:
        self.sent += 1
        return requests_of(load, self.seen.ruler, salt=f"{self.sent} {load.name}")

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
        rate = self.read_rate or 200.0
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
            self.read_rate = rate if self.read_rate is None else min(self.read_rate, rate)

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
        named = explain(list(self.service.log.lines), self.service.state().exit_code, serving=True)
        cause: Cause = "memory" if named.kind == "memory" else "other"
        if cause == "other" and self.service.state().running:
            return Failure("under load", "hang", "it took requests and gave no token any more", 4)
        return Failure("under load", cause, named.found, 4)


def requests_of(load: Load, ruler: prompts.Ruler, *, salt: str) -> list[list[Request]]:
    """The load's requests with prompts of their lengths, all different; all are sampled, which costs memory that greedy
    decoding does not.
    """
    made: list[list[Request]] = []
    number = 0
    base = zlib.crc32(salt.encode())
    for wave in load.waves:
        made.append([])
        for shape in wave:
            made[-1].append(_request(shape, ruler, base + number))
            number += 1
    return made


def _request(shape: Shape, ruler: prompts.Ruler, seed: int) -> Request:
    text = prompts.text(ruler.words(shape.input_tokens), seed=seed)
    return Request(text, shape.input_tokens, shape.max_new_tokens, seed=seed % 2**31)


def judge(load: Load, burst: Burst) -> LoadResult:
    """What a burst says about the engine."""
    answers = burst.answers
    begun = [each for each in answers if each.begun]
    refused = [each for each in answers if each.error_kind == "overloaded"]
    wrong = [each for each in answers if not each.ok and each.error_kind != "overloaded"]
    verdict, reason = _verdict(burst, wrong, len(refused), load)
    gaps = [after - before for each in begun for before, after in pairwise(each.token_at)]
    firsts = [each.token_at[0] - each.sent_at for each in begun if each.sent_at is not None]
    return LoadResult(
        load=load,
        verdict=verdict,
        begun=len(begun),
        begun_tokens=sum(each.request.input_tokens + each.request.max_new_tokens for each in begun),
        carried=_running(begun)
        if verdict in ("died", "stalled")
        else carried(begun, to_end=load.name.startswith("write")),
        beside=beside(begun),
        completed=sum(each.ok and not each.left for each in answers),
        refused=len(refused),
        waited=sum(not each.begun for each in answers),
        ttft_p95=quantile(firsts, 0.95) if firsts else None,
        itl_p95=quantile(gaps, 0.95) if gaps else None,
        rate=_rate(begun),
        seconds=burst.seconds,
        reason=reason,
    )


def _verdict(burst: Burst, wrong: Sequence[Answered], refused: int, load: Load) -> tuple[Verdict, str | None]:
    if burst.ending == "died":
        return "died", next((each.error for each in wrong if each.error), None) or "the engine ended"
    if burst.ending == "stalled":
        waiting = sum(not each.begun for each in burst.answers)
        return "stalled", f"{waiting} requests wait and nobody gets a token"
    if burst.ending == "late":
        return "cut short", "took too long"
    if wrong:
        kinds = {each.error_kind for each in wrong}
        return ("refused" if kinds == {"validation"} else "failed"), wrong[0].error or str(wrong[0].error_kind)
    if refused > load.excess:
        return "refused", f"{refused} of {len(burst.answers)} requests were refused as too many"
    return "held", None


def carried(begun: Sequence[Answered], *, to_end: bool = False) -> int | None:
    """Most tokens that were in flight while a prompt was read: that prompt, and prompts and answers so far of all that
    ran beside it. to_end: or at any other moment.

    What was asked for in all may be more: some may have ended before, or had to wait. None where nothing began.
    """
    order = sorted(begun, key=lambda each: each.token_at[0])
    moments = [each.token_at[0] for each in order] + [each.token_at[-1] for each in order if to_end]
    return max((_in_flight(order, moment) for moment in moments), default=None)


def _in_flight(order: Sequence[Answered], moment: float) -> int:
    running = (each for each in order if each.token_at[0] <= moment <= each.token_at[-1])
    return sum(each.request.input_tokens + bisect_left(each.token_at, moment) for each in running)


def _running(begun: Sequence[Answered]) -> int:
    """Tokens of all that had begun and not ended of itself when the burst ended."""
    return sum(each.request.input_tokens + len(each.token_at) for each in begun if not each.ok)


def beside(begun: Sequence[Answered]) -> int | None:
    """Most requests in flight at once for certain: each had a token and was to have another. None without any."""
    order = [each for each in begun if len(each.token_at) > 1]
    return max(
        (sum(each.token_at[0] <= first.token_at[0] < each.token_at[-1] for each in order) for first in order),
        default=None,
    )


def _read_together(load: Load, burst: Burst) -> bool:
    """Whether the first tokens of the last prompts, where they must be read in as one, came at once."""
    last = [each for each in burst.answers[-load.together :] if each.token_at and each.sent_at is not None]
    if load.together < 2 or len(last) < load.together:
        return load.together < 2
    firsts = [each.token_at[0] for each in last]
    waited = min(firsts) - max(each.sent_at or 0.0 for each in last)
    return max(firsts) - min(firsts) <= max(0.003, _TOGETHER * waited)


def _rate(begun: Sequence[Answered]) -> float | None:
    """Tokens per second between the last first token and the first last one, when all are running."""
    if not begun:
        return None
    start, end = max(each.token_at[0] for each in begun), min(each.token_at[-1] for each in begun)
    tokens = sum(start < moment <= end for each in begun for moment in each.token_at)
    return tokens / (end - start) if end > start and tokens else None


def count_tokens(endpoint: Endpoint, text: str) -> int | None:
    """Tokens of a text by /tokenize, else by the input length that an answer tells; None where neither is there."""
    body = json.dumps({"inputs": text}).encode()
    answer = fetch(endpoint, "POST", "/tokenize", body)
    try:
        listed = json.loads(answer) if answer is not None else None
    except ValueError:
        listed = None
    if isinstance(listed, list) and listed:
        return len(listed)
    burst = send_burst(endpoint, APIS["tgi"], [[Request(text, len(text) // 4, 1)]], patience=Patience(30, 60))
    return burst.answers[0].input_tokens


def input_name(version: str | None, model: Model) -> str:
    """How this engine calls the limit of the prompt."""
    return input_limit_name(parse_version(version or model.engine.version))
