"""A span in which the service was away, told from an overload whose failures come in clumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.catalog.slo import parse_slo
from harness.measure.records import FAILED, Records
from harness.measure.run_folder import Level
from harness.stats.capacity_search import MOST_OUTAGES, CapacitySearch, Goal
from harness.stats.outage import outage_seconds
from harness.stats.outcome import Outcome, outcome_of
from harness.stats.window import steady_window
from tests.stats.made_up import KvBound, MadeUp, PrefillQueue, Slots, away
from tests.stats.searches import searched

QUEUE = PrefillQueue(capacity=16, slo=parse_slo("ttft_p95=1500ms"))
SERVICES = [(QUEUE, 10.0), (KvBound(), 20.0), (Slots(), 30.0)]


def made(service: MadeUp, load: float, seed: int, seconds: float = 30.0) -> tuple[Level, Records]:
    return service.level(load, seconds, np.random.default_rng(seed))


def seen(service: MadeUp, level: Level, records: Records) -> float:
    return outage_seconds(records, steady_window(level, records), service.slo)


@pytest.mark.parametrize(("service", "load"), SERVICES, ids=["queue", "kv", "slots"])
def test_a_span_without_any_answer_is_an_outage(service: MadeUp, load: float) -> None:
    """Of two seconds or more in half a minute, at a load that holds; the level decides nothing then."""
    for share in (0.08, 0.3):
        level, records = made(replace(service, down=share), load, 1)
        assert seen(service, level, records) == pytest.approx(30 * share, abs=1.0)
        outcome = outcome_of(level, records, service.slo, seconds=30.0)
        assert outcome.decision == "undecided"
        assert Outcome.from_dict(outcome.as_dict()).outage == outcome.outage
    assert not any(seen(service, *made(service, load, seed)) for seed in range(20))


def test_an_outage_may_spare_what_runs_already() -> None:
    """A proxy that refuses while answers end: nobody else is answered until it is back."""
    for service, load in SERVICES[1:]:
        level, records = made(service, load, 1, 60.0)
        assert seen(service, level, away(records, 20.0, 32.0, spared=True)) > 4.0


def refusing(records: Records, kind: str, most: int) -> Records:
    """Requests that found so many before them waiting for their first token are refused."""
    first = records.token_at[records.offsets[:-1]]
    waiting = [np.count_nonzero(first[:number] > due) for number, due in enumerate(records.scheduled_at)]
    return failing(records, np.array(waiting) >= most, kind)


def failing(records: Records, lost: np.ndarray, kind: str) -> Records:
    return replace(
        records,
        finished_at=np.where(lost, records.scheduled_at + 0.002, records.finished_at),
        status=np.where(lost, FAILED, records.status).astype(np.int8),
        error_kind=np.where(lost, kind, records.error_kind),
    )


@pytest.mark.parametrize("kind", ["overloaded", "refused", "timeout"])
@pytest.mark.parametrize("load", [13.0, 15.5, 24.0])
def test_an_overload_whose_failures_come_in_clumps_is_none(kind: str, load: float) -> None:
    """A queue that is full refuses many in a row, and goes on answering those whom it took."""
    found = [made(QUEUE, load, seed, 60.0) for seed in range(20)]
    assert not any(seen(QUEUE, level, refusing(records, kind, 10)) for level, records in found)


def test_a_batch_that_dies_is_no_outage() -> None:
    """Out of memory: all that ran are lost at once, and whoever asks next is served."""
    service, load = SERVICES[1]
    level, records = made(service, load, 1)
    at = 15.0
    running = (records.scheduled_at < at) & (records.finished_at > at)
    lost = replace(failing(records, running, "generation"), finished_at=np.where(running, at, records.finished_at))
    assert np.count_nonzero(running) >= 15
    assert seen(service, level, lost) == 0.0


def test_a_silence_while_requests_wait_is_an_outage_too() -> None:
    """Nothing fails, and nobody gets a token for longer than a service that works takes."""
    service, load = SERVICES[1]
    for held_up, found in ((20.0, True), (2.0, False)):
        level, records = made(service, load, 1, 60.0)
        later = {
            name: np.where(getattr(records, name) > 20.0, getattr(records, name) + held_up, getattr(records, name))
            for name in ("scheduled_at", "sent_at", "token_at", "finished_at", "first_byte_at")
        }
        assert (seen(service, level, replace(records, **later)) > 10.0) is found


def test_a_service_that_broke_before_it_went_away_is_not_excused() -> None:
    """It may have gone away for that: at a fifth more than the queue can take the SLO was missed from the begin."""
    level, records = made(replace(QUEUE, down=0.2), 20.0, 1, 60.0)
    assert seen(QUEUE, level, records) == 0.0


def test_an_outage_is_measured_again_and_changes_no_answer() -> None:
    """In one level, at any time of a search: the same load comes next, and the answer holds the truth."""
    for number in (3, 6, 9):
        down = iter([0.0] * number + [0.2] + [0.0] * 99)
        search = searched(QUEUE, 5, odd=lambda plain, _, down=down: replace(plain, down=next(down)))
        told, answer = search.told, search.answer()
        assert [place for place, each in enumerate(told) if each.outage] == [number] == sorted(search.left_out)
        assert (told[number + 1].load, told[number + 1].brief) == (told[number].load, told[number].brief)
        assert answer.holds <= QUEUE.knee < (answer.breaks or np.inf)
        assert any("left out" in note for note in answer.notes)


def test_a_load_under_which_a_service_goes_away_breaks() -> None:
    """Again and again, from 9 requests/s on: it holds less, though it would come back each time."""
    search = searched(QUEUE, 5, odd=lambda plain, load: replace(plain, down=0.1 * (load >= 9.0)))
    answer = search.answer()
    assert answer.breaks is not None
    assert answer.holds < 9.0
    assert any("more than once" in note for note in answer.notes)


def test_a_second_outage_is_not_let_pass() -> None:
    """Nor the first one then, be it at another load."""
    level, records = made(replace(QUEUE, down=0.1), 8.0, 1)
    spoilt = outcome_of(level, records, QUEUE.slo, seconds=30.0)
    for many in range(1, 4):
        told = [replace(spoilt, load=spoilt.load + number) for number in range(many)]
        left_out = CapacitySearch(Goal(1.0, False), told).left_out
        assert len(left_out) == (many if many <= MOST_OUTAGES else 0)
