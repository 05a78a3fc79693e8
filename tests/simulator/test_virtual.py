"""A run in virtual time: the same course as call by call, records with every moment, closed loops, limits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog.gpus import find_gpu
from harness.catalog.shapes import shapes
from harness.measure.record import RequestRecord
from harness.simulator.continuation import LengthLimits
from harness.simulator.cost import cost_of
from harness.simulator.memory import Budget, ServingPlan, budget, resolve
from harness.simulator.request import EngineRequest
from harness.simulator.scheduler import EngineSettings, Scheduler, StepShape
from harness.simulator.virtual import PlannedRequest, closed_loop, simulate

RULES = EngineSettings(max_batch_prefill_tokens=256, max_batch_total_tokens=4000)
WHOLE = replace(RULES, chunking=False)


@dataclass(frozen=True)
class Fixed:
    """A second per call, and nothing before the queue."""

    request: float = 0.0

    def seconds(self, step: StepShape) -> float:
        return 1.0

    def request_seconds(self, input_tokens: int) -> float:
        return self.request


def test_a_lone_request_has_its_tokens_one_step_apart() -> None:
    """Prefill in two chunks, then a decode per token."""
    record = simulate([PlannedRequest(2.0, 300, 4)], RULES, Fixed())[0]
    assert list(record.token_at) == [4.0, 5.0, 6.0, 7.0]
    assert list(record.token_count) == [1, 1, 1, 1]
    assert (record.first_byte_at, record.finished_at, record.queue_time) == (4.0, 7.0, 0.0)
    assert (record.status, record.finish_reason) == ("completed", "length")
    assert (record.input_tokens, record.output_tokens, record.asked_output_tokens) == (300, 4, 4)


def test_without_chunking_a_first_token_comes_from_a_prefill_of_its_own() -> None:
    """The running request waits meanwhile: its gap is two steps long."""
    first, second = simulate([PlannedRequest(0.0, 10, 5), PlannedRequest(1.5, 10, 3)], WHOLE, Fixed())
    assert list(first.token_at) == [1.0, 2.0, 4.0, 5.0, 6.0]
    assert list(second.token_at) == [3.0, 4.0, 5.0]


def test_an_answer_shorter_than_asked_ends_by_itself() -> None:
    """And reserves what was asked."""
    record = simulate([PlannedRequest(0.0, 10, 4, max_new_tokens=50)], RULES, Fixed())[0]
    assert (record.finish_reason, record.output_tokens) == ("eos_token", 4)


def test_what_is_not_answered_at_the_end_is_in_flight() -> None:
    """With the tokens that came until then; who was not even started has none."""
    records = simulate([PlannedRequest(0.0, 10, 100), PlannedRequest(9.0, 10, 100)], RULES, Fixed(), until=9.0)
    assert [record.status for record in records] == ["in_flight", "in_flight"]
    assert [len(record.token_at) for record in records] == [9, 0]
    assert records[1].first_byte_at is None


def test_router_and_tokenizer_delay_the_queue() -> None:
    """Time before the queue counts into the first token."""
    record = simulate([PlannedRequest(0.0, 10, 2)], RULES, Fixed(request=0.25))[0]
    assert list(record.token_at) == [1.25, 2.25]


def test_permits_and_limits_refuse_at_once() -> None:
    """As TGI's semaphore and validation do."""
    limits = LengthLimits(max_input_tokens=100, max_total_tokens=200)
    asked = [PlannedRequest(0.0, 50, 10), PlannedRequest(0.5, 50, 10), PlannedRequest(50.0, 101, 10)]
    records = simulate(asked, RULES, Fixed(), limits=limits, max_concurrent_requests=1)
    assert [record.status for record in records] == ["completed", "failed", "failed"]
    assert [record.error_kind for record in records] == [None, "overloaded", "validation"]


def test_long_answers_are_queued_again_after_1024_tokens() -> None:
    """1500 tokens asked of a model that never stops: 2048 come, with a prefill of the grown prompt in between."""
    limits = LengthLimits(max_input_tokens=2048, max_total_tokens=4096)
    rules = replace(RULES, max_batch_prefill_tokens=4096, max_batch_total_tokens=8000)
    planned = PlannedRequest(0.0, 10, 2048, max_new_tokens=1500)
    record = simulate([planned], rules, Fixed(), limits=limits)[0]
    assert record.output_tokens == len(record.token_at) == 2048
    assert np.all(np.diff(record.token_at) == 1.0)


def test_an_answer_ends_where_the_grown_prompt_breaks_a_limit() -> None:
    """A prompt above max_input - 1024 never gets more than 1024 tokens."""
    limits = LengthLimits(max_input_tokens=2048, max_total_tokens=4096)
    rules = replace(RULES, max_batch_prefill_tokens=4096, max_batch_total_tokens=8000)
    record = simulate([PlannedRequest(0.0, 1321, 2000)], rules, Fixed(), limits=limits)[0]
    assert (record.output_tokens, record.finish_reason) == (1024, "length")


def test_shared_prefixes_are_found_in_the_cache() -> None:
    """The second of two requests with a common beginning of 200 tokens needs one forward less for its prompt."""
    rules = replace(RULES, max_batch_prefill_tokens=100)
    alike = [PlannedRequest(at, 250, 2, prefix="system", prefix_tokens=200) for at in (0.0, 100.0)]
    first, second = simulate(alike, rules, Fixed())
    other = simulate([alike[0], replace(alike[1], prefix="another")], rules, Fixed())[1]
    assert first.first_byte_at == 3.0
    assert second.first_byte_at == 101.0
    assert other.first_byte_at == 103.0


def test_a_closed_loop_asks_again_when_answered() -> None:
    """Two users, six requests: never more than two at a time, each next one due when an answer ended."""
    requests, follow_up = closed_loop(2, [(10, 4), (10, 7)], 6)
    records = simulate(requests, RULES, Fixed(), follow_up=follow_up)
    assert len(records) == 6
    ends = sorted(record.finished_at or 0.0 for record in records)
    starts = sorted(record.scheduled_at for record in records)
    assert starts == [0.0, 0.0, *ends[:4]]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 300), st.integers(1, 20)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_virtual_time_takes_the_same_course_as_call_by_call(
    asked: list[tuple[int, int, int]], chunking: bool, cache: bool
) -> None:
    """Every token of every request at the same moment, whichever way the scheduler is driven."""
    rules = replace(RULES, chunking=chunking, prefix_cache=cache, max_batch_prefill_tokens=128 if chunking else 512)
    records = simulate([PlannedRequest(float(at), size, new) for at, size, new in asked], rules, Fixed())
    moments = call_by_call(rules, asked)
    for number, record in enumerate(sorted(records, key=lambda each: int(each.request_id[1:]))):
        assert list(record.token_at) == moments[number]


def call_by_call(rules: EngineSettings, asked: list[tuple[int, int, int]]) -> dict[int, list[float]]:
    scheduler, now = Scheduler(rules), 0.0
    waiting = sorted(
        (float(at), number, EngineRequest(number, [1, *[-1 - number] * (size - 1)], new))
        for number, (at, size, new) in enumerate(asked)
    )
    # Numbers follow the order of arrival in virtual time; here too, or prompts would differ.
    moments: dict[int, list[float]] = {number: [] for number in range(len(asked))}
    while True:
        while waiting and waiting[0][0] <= now:
            at, _, request = waiting.pop(0)
            scheduler.enqueue(request, at)
        call = scheduler.next_call(now)
        if call is None:
            if not waiting:
                return moments
            now = waiting[0][0]
            continue
        now += 1.0
        while waiting and waiting[0][0] <= now:
            at, _, request = waiting.pop(0)
            scheduler.enqueue(request, at)
        for emission in scheduler.complete(call, now):
            moments[int(emission.request.id)] += [now] * emission.tokens


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    """Jitter comes from a seeded generator."""
    from harness.simulator.world import World

    def moments(seed: int) -> list[float]:
        served = ServingPlan(shapes()["Qwen2.5-0.5B"], find_gpu("L4"))
        cost = cost_of(resolve(served), World(jitter=0.1, seed=seed))
        return list(simulate([PlannedRequest(0.0, 100, 20)], RULES, cost)[0].token_at)

    assert moments(1) == moments(1)
    assert moments(1) != moments(2)


def test_an_hour_of_a_busy_service_keeps_its_books() -> None:
    """An 8B model on an H100 under a steady load: all tokens accounted for, moments rising, nobody forgotten."""
    served = ServingPlan(shapes()["Llama-3.1-8B"], find_gpu("H100"))
    found, resolved = budget(served), resolve(served)
    assert isinstance(found, Budget)
    rules = EngineSettings(resolved.max_batch_prefill_tokens, found.tokens)
    asked = [PlannedRequest(number * 0.2, 100 + number % 900, 20 + number % 180) for number in range(1500)]
    records = simulate(asked, rules, cost_of(resolved), until=280.0)
    assert [record.scheduled_at for record in records] == [each.at for each in asked]
    for record, each in zip(records, asked, strict=True):
        check(record, each.output_tokens)
    assert sum(record.status == "completed" for record in records) > 1300


def check(record: RequestRecord, output_tokens: int) -> None:
    moments = np.asarray(record.token_at)
    assert len(record.token_at) == len(record.token_count)
    assert np.all(np.diff(moments) > 0)
    if record.status == "completed":
        assert len(moments) == output_tokens
        assert record.finished_at == pytest.approx(moments[-1])
    if len(moments):
        assert moments[0] > record.scheduled_at
