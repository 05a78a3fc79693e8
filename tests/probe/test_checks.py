"""The proof, check by check."""

from __future__ import annotations

import pytest

from harness.drive import probe_start
from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.checks import all_held, checks_of
from harness.probe.evidence import gather
from harness.probe.setting import Load, LoadResult, Outcome, Setting

FACTS = EngineFacts("flash", True, 30_000, prefill_tokens=4096)


def proof(*results: LoadResult) -> list[Outcome]:
    return [Outcome(Setting(100, 200, purpose="verify"), FACTS, True, None, results)]


def test_what_was_refused_did_not_run() -> None:
    """A check whose requests the engine did not take proves nothing."""
    checks = checks_of(gather(proof(LoadResult(loads.rows(3), "held"), LoadResult(loads.longest(9, 9), "refused"))))
    assert [(each.ran, each.held) for each in checks] == [(True, True), (False, False)]
    assert not all_held(checks)


def test_an_overload_that_is_served_whole_has_not_held() -> None:
    """Nothing was seen to be refused."""
    (check,) = checks_of(gather(proof(LoadResult(loads.overload(3), "held", refused=0))))
    assert not check.held
    (check,) = checks_of(gather(proof(LoadResult(loads.overload(3), "held", refused=2))))
    assert check.held


def test_a_budget_that_was_not_in_flight_was_not_tried() -> None:
    """Chats that ended before the last were read took nothing with them."""
    load = loads.stacked(9000, 1000, 1000, 1000, 1200, rows=20)
    for carried, ran in ((load.size - 20, True), (load.size // 2, False)):
        (check,) = checks_of(gather(proof(LoadResult(load, "held", carried=carried, beside=20))))
        assert (check.ran, check.held) == (ran, ran)
        assert ran or f"{carried:,} of {load.size:,}" in (check.why or "")


@pytest.mark.parametrize(
    "load", [loads.rows(40), loads.onto(39, 2000), loads.written(9000, 40, 1200)], ids=lambda load: load.kind
)
def test_chats_that_were_not_all_beside_each_other_proved_nothing(load: Load) -> None:
    """One that ended before the last began leaves a smaller batch than the one that is to be proved."""
    for beside, ran in ((load.rows, True), (load.rows - 1, False)):
        (check,) = checks_of(gather(proof(LoadResult(load, "held", carried=5000, beside=beside))))
        assert (check.ran, check.held) == (ran, ran)
        assert ran or f"only {beside} of {load.rows}" in (check.why or "")


def test_answers_that_the_model_ended_filled_nothing() -> None:
    """A budget that answers were to fill was not filled where some ended of themselves."""
    load = loads.written(9000, 4, 2500)
    for early, ran in ((0, True), (1, False)):
        (check,) = checks_of(gather(proof(LoadResult(load, "held", beside=4, ended_early=early))))
        assert (check.ran, check.held) == (ran, ran)
        assert ran or "ended 1 of 4 answers" in (check.why or "")
    (check,) = checks_of(gather(proof(LoadResult(load, "held", beside=3, ended_early=1))))
    assert (check.why or "").startswith("only 3 of 4 chats were in flight at once: the model ended 1 of 4 answers")


def test_nobody_is_one_too_many_where_others_have_ended() -> None:
    """That nothing was refused speaks against an engine only if all that it lets in were there."""
    for beside, ran in ((None, True), (3, True), (2, False)):
        (check,) = checks_of(gather(proof(LoadResult(loads.overload(3), "held", refused=0, beside=beside))))
        assert (check.ran, check.held) == (ran, False)
    (check,) = checks_of(gather(proof(LoadResult(loads.overload(3), "held", refused=4, beside=2))))
    assert check.held


@pytest.mark.parametrize(("load", "times"), [(loads.written(9000, 4, 2500), 2), (loads.rows(4), 12)])
def test_whole_answers_are_not_written_again_and_again(load: Load, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that keeps such chats apart will do so each time, and they take the longest; others get longer ones."""
    loading = object.__new__(probe_start._Loading)
    loading.started, loading.setting = EngineFacts("padded"), Setting(100, 2500, 2500, 9000, purpose="verify")
    sent: list[Load] = []

    def kept_apart(load: Load) -> tuple[LoadResult, bool]:
        sent.append(load)
        return LoadResult(load, "held", beside=3), True

    monkeypatch.setattr(loading, "_send_once", kept_apart)
    assert loading._as_meant(load).beside == 3
    assert len(sent) == times


def test_a_flash_engine_is_full_when_all_are_there() -> None:
    """It takes blocks at admission: what counts is that nobody had left before the last came."""
    load = loads.fill(20_000, 1000, 100, most=40)
    for beside, ran in ((load.rows, True), (load.rows // 2, False)):
        (check,) = checks_of(gather(proof(LoadResult(load, "held", carried=5000, beside=beside))))
        assert (check.ran, check.held) == (ran, ran)


def test_without_a_proof_there_are_no_checks() -> None:
    """And nothing is verified."""
    assert not checks_of(gather([Outcome(Setting(), FACTS, True)]))
    assert not all_held([])
