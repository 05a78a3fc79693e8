"""The proof, check by check."""

from __future__ import annotations

from harness.engines.base import EngineFacts
from harness.probe import loads
from harness.probe.checks import all_held, checks_of
from harness.probe.evidence import gather
from harness.probe.setting import LoadResult, Outcome, Setting

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


def test_without_a_proof_there_are_no_checks() -> None:
    """And nothing is verified."""
    assert not checks_of(gather([Outcome(Setting(), FACTS, True)]))
    assert not all_held([])
