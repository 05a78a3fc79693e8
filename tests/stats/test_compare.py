"""Two runs: the ratio, and whether it is more than noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.measure.arrivals import arrival_of
from harness.measure.client import ClientFacts, ClientSample
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run import Run
from harness.measure.run_folder import Level, Manifest, RunFolder
from harness.stats import compare as judging
from harness.stats import validity
from harness.stats.comparable import CHANCE, differences
from harness.stats.comparison import Change, Comparison
from harness.stats.effect import Spread
from harness.stats.gate import Gate
from harness.stats.interval import block_of_request
from harness.stats.metrics import Values
from harness.stats.resample import block_counts, grid, quantiles_on_grid
from harness.stats.run_figures import recorded
from harness.stats.spread import spreads_of
from tests.runs import closed_level, closed_loop, failed, manifest

LEVEL = closed_level(0, 8, 0.0, 60.0)


def compare(base: list[Run], new: list[Run], *more: Any, **others: Any) -> Comparison:
    return judging.compare(recorded(base), recorded(new), *more, **others)


@cache
def _loop(seed: int, level: Level) -> list[RequestRecord]:
    return closed_loop(replace(level, level=seed), spread=0.1)


def run(
    seed: int = 1,
    slower: float = 1.0,
    change: Callable[[Manifest], Manifest] | None = None,
    level=LEVEL,
    at: int | None = None,
) -> Run:
    """Eight users for a minute; latencies vary by a tenth. slower: all latencies times this. at: place in the order."""
    made = [replace(record, request_id=f"0-{number}", level=0) for number, record in enumerate(_loop(seed, level))]
    made = [_stretched(record, slower) for record in made]
    name = f"run-{seed}-{slower}"
    start = f"2025-01-31T{10 + (seed if at is None else at):02}:00:00Z"
    plain = manifest([level], run_id=name, start=start, end=start.replace("00:00Z", "01:30Z"))
    return Run(RunFolder(Path(name)), change(plain) if change else plain, Records.from_list(made), ClientFacts())


def side(*seeds: int, slower: float = 1.0, **others: Any) -> list[Run]:
    """Repeats that differ a little as a whole, as runs do."""
    return [run(seed, slower * (1 + 0.004 * (seed % 3)), **others) for seed in seeds]


BASE, NEW = (1, 4, 5, 8, 9), (2, 3, 6, 7, 10)  # ABBAABBAAB


def _stretched(record: RequestRecord, times: float) -> RequestRecord:
    due = record.scheduled_at
    if record.finished_at is None:
        return record
    token_at = [due + times * (at - due) for at in record.token_at]
    return replace(record, token_at=token_at, finished_at=due + times * (record.finished_at - due))


def verdicts(comparison: Comparison, *metrics: str) -> set[str]:
    return {change.verdict for change in comparison.gated if change.figure.rpartition("_")[0] in metrics}


def found_for(comparison: Comparison, figure: str) -> Change:
    return next(change for change in comparison.changes if change.figure == figure)


def test_other_runs_of_the_same_thing_are_the_same() -> None:
    """Five against five: nothing is called a change, each figure is decided, and the gate holds."""
    found = compare(side(*BASE), side(*NEW))
    assert {change.figure for change in found.gated} == {
        "good_share", "ttft_p50", "itl_p50", "output_tokens_per_second", "e2e_p50", "ttft_p95",
    }  # fmt: skip
    assert {change.verdict for change in found.gated} == {"same"}
    assert (found.verdict, found.passes, found.needs) == ("same", True, None)


def test_twice_the_latency_is_slower_and_breaks_the_gate() -> None:
    """Every latency is named slower, with a ratio of two and an interval around it; the throughput is halved."""
    found = compare(side(*BASE), side(*NEW, slower=2.0))
    assert verdicts(found, "ttft", "itl", "e2e") == {"slower"}
    assert (found.verdict, found.passes) == ("slower", False)
    for change in found.changes:
        if change.figure.endswith(("_p50", "_p95")):
            assert change.ratio == pytest.approx(2.0, rel=0.02)
            assert change.ci95[0] < 2.0 < change.ci95[1]


def test_half_the_latency_is_faster_and_passes() -> None:
    """Better never breaks a gate."""
    found = compare(side(*BASE, slower=2.0), side(*NEW))
    assert verdicts(found, "ttft", "itl", "e2e") == {"faster"}
    assert found.passes


def test_one_run_a_side_decides_nothing() -> None:
    """Nobody knows how much two runs of the same thing differ: twice the latency and none at all are both undecided."""
    for slower in (1.0, 2.0):
        found = compare([run(1)], [run(2, slower)])
        assert {change.verdict for change in found.gated if change.figure != "good_share"} == {"inconclusive"}
        assert not found.passes
        assert found_for(found, "itl_p50").spread is None
        assert found.needs is not None
        assert found.needs.repeats == 4
        assert found.needs.seconds == pytest.approx(4 * 2 * 90)


def test_one_run_a_side_is_judged_by_a_spread_that_was_measured() -> None:
    """An A/A of the same service stands in for the repeats."""
    spreads = {("8 users", figure): Spread(0.01, 20) for figure in ("ttft_p50", "itl_p50", "e2e_p50", "ttft_p95")}
    spreads["8 users", "output_tokens_per_second"] = Spread(0.01, 20)
    assert compare([run(1)], [run(2)], spreads=spreads).passes
    slow = compare([run(1)], [run(2, 1.4)], spreads=spreads)
    assert (slow.verdict, slow.passes) == ("slower", False)
    assert found_for(slow, "itl_p50").spread_from == "A/A"


def test_a_real_change_within_the_limit_is_named_but_passes() -> None:
    """Four per cent slower for sure, ten are allowed."""
    found = compare(side(*BASE), side(*NEW, slower=1.04))
    assert verdicts(found, "itl") == {"slower"}
    assert found.passes


def test_limits_hold_per_figure_and_per_metric() -> None:
    """A tighter limit breaks where the default holds."""
    assert not compare(side(*BASE), side(*NEW, slower=1.05), Gate({"itl_p50": 0.01})).passes
    assert not compare(side(*BASE), side(*NEW, slower=1.05), Gate({"itl": 0.01})).passes
    assert compare(side(*BASE), side(*NEW, slower=1.2), Gate(default=0.5)).passes


def test_what_the_gate_names_is_gated() -> None:
    """A quantile that is not among the primary ones, and a metric by its median and tail: never accepted unread."""
    named = compare(side(*BASE), side(*NEW, slower=1.2), Gate({"tpot_p99": 0.1, "service_ttft": 0.01}, default=0.9))
    assert {"tpot_p99", "service_ttft_p50", "service_ttft_p95"} <= {change.figure for change in named.gated}
    assert {change.figure for change in named.gated if change.passes is False} >= {"service_ttft_p50"}


def test_a_limit_that_the_interval_straddles_is_undecided() -> None:
    """Neither a pass nor a fail, and said so, with what would decide it; a gate may let that pass."""
    base, new = side(*BASE), side(*NEW, slower=1.1)
    found = compare(base, new)
    assert not found.passes
    undecided = {change.figure for change in found.undecided}
    assert undecided
    assert found.needs is not None
    assert found.needs.repeats >= 1
    assert compare(base, new, Gate(undecided_passes=True)).passes


def test_repeats_show_the_noise_between_runs() -> None:
    """Runs that differ as a whole by a tenth do not decide a limit of a tenth."""
    base = [run(1), run(4, 1.1), run(5, 1.2)]
    new = [run(2, 1.2), run(3, 1.05), run(6, 1.1)]
    assert verdicts(compare(base, new), "itl", "ttft") == {"inconclusive"}


def test_repeats_that_do_not_agree_are_no_repeats() -> None:
    """One of NEW's runs is half as slow again as the others: the side is refused, also where it is faster than BASE."""
    found = compare(side(*BASE, slower=2.0), [*side(2, 3, 6, 7), run(10, 1.5)])
    assert not found.passes
    assert "NEW's repeats do not agree: ttft_p50 at 8 users" in found.problems[0]


def test_drift_is_no_change_and_is_named() -> None:
    """A machine that slows down from run to run: a true change is found where the runs took turns, and only there."""
    drifting = [run(seed, 1.01**at, at=at) for at, seed in enumerate((1, 2, 3, 4, 5, 6))]
    found = compare(drifting[:3], drifting[3:])
    assert "slower" not in {change.verdict for change in found.gated}
    assert any(note.startswith("the sides ran one after the other: a drift") for note in found.notes)
    turns = "ABBAABBAAB"
    mixed = [run(at + 1, 1.01**at * (1.05 if turn == "B" else 1.0), at=at) for at, turn in enumerate(turns)]
    base, new = ([each for each, turn in zip(mixed, turns) if turn == which] for which in "AB")
    found = compare(base, new)
    assert verdicts(found, "itl") == {"slower"}
    assert found_for(found, "itl_p50").ratio == pytest.approx(1.05, rel=0.01)
    assert any(note.startswith("drift: itl_p50 at 8 users moved by +0.9") for note in found.notes)


def hit(runs: list[Run], what: Callable[[RequestRecord], RequestRecord], every: int) -> list[Run]:
    """Each run with every so many-th request changed, and of `every` 1 two thirds of them."""
    return [
        replace(each, records=Records.from_list(
            [what(record) if _chosen(number, every) else record for number, record in enumerate(each.records.to_list())]
        ))
        for each in runs
    ]  # fmt: skip


def _chosen(number: int, every: int) -> bool:
    return number % 3 > 0 if every == 1 else number % every == 7


def _stuck(record: RequestRecord) -> RequestRecord:
    assert record.finished_at is not None
    return replace(
        record, token_at=[*record.token_at[:-1], record.token_at[-1] + 60], finished_at=record.finished_at + 60
    )


def _failed(record: RequestRecord) -> RequestRecord:
    return failed(int(record.request_id.partition("-")[2]), record.scheduled_at)


def test_a_few_requests_that_hang_do_not_pass() -> None:
    """Three in two hundred take a minute longer: no median and no p95 moves, the share of good answers does."""
    found = compare(side(*BASE), hit(side(*NEW), _stuck, 66))
    share = found_for(found, "good_share")
    assert share.new == pytest.approx(1 - 1 / 66, abs=0.002)
    assert share.passes is False
    assert not found.passes


def test_failures_are_infinitely_late_whoever_survives() -> None:
    """Some of NEW's requests fail and the rest are twice as fast; where most do, the median is one that never came."""
    found = compare(side(*BASE), hit(side(*NEW, slower=0.5), _failed, 8))
    assert not found.passes
    assert found_for(found, "good_share").passes is False
    most = hit(side(*NEW, slower=0.5), _failed, 1)
    median = found_for(compare(side(*BASE), most), "ttft_p50")
    assert (median.new, median.verdict, median.passes) == (math.inf, "slower", False)


def test_the_same_run_on_both_sides_is_refused() -> None:
    """Whoever wires a gate so would pass anything."""
    found = compare(side(*BASE), [*side(2, 3, 6, 7), run(1, 1.004)])
    assert not found.passes
    assert "hold the same run" in found.problems[0]


def test_what_may_be_left_out_are_rules_that_there_are() -> None:
    """A name that no rule gives would leave out nothing."""
    text = Path(validity.__file__).read_text()
    assert all(f'"{rule}"' in text for rule in CHANCE)


def test_the_overall_verdict_is_the_same_where_all_pass_and_none_differs() -> None:
    """Also where a figure may yet be better: whoever asks whether NEW is worse is answered."""
    found = compare(side(*BASE), side(*NEW))
    better = replace(found_for(found, "ttft_p50"), verdict="inconclusive")
    changes = tuple(better if each.figure == "ttft_p50" else each for each in found.changes)
    assert replace(found, changes=changes).verdict == "same"
    open_one = replace(better, passes=None)
    changes = tuple(open_one if each.figure == "ttft_p50" else each for each in found.changes)
    assert replace(found, changes=changes).verdict == "inconclusive"


def test_the_spread_of_repeats_is_that_of_their_values() -> None:
    """Runs that are slower by 0, 10 and 20 % as a whole: the standard deviation of the logarithms, with two degrees."""
    found = spreads_of(recorded([run(1), run(2, 1.1), run(3, 1.2)]))["8 users", "itl_p50"]
    assert found.deviation == pytest.approx(float(np.std(np.log([1.0, 1.1, 1.2]), ddof=1)), rel=0.05)
    assert found.freedom == 2
    assert spreads_of(recorded([run(1)])) == {}


def _busy(each: Run) -> Run:
    """Its client had no CPU left."""
    samples = tuple(ClientSample(float(at), "0", cpu_fraction=1.0, loop_lag_max=0.0) for at in range(60))
    return replace(each, facts=ClientFacts(samples=samples))


def test_one_repeat_that_the_client_spoilt_is_left_out_and_said() -> None:
    """One in five by chance; two are no chance, and what the server did is never left out."""
    base, new = side(*BASE), side(*NEW)
    found = compare(base, [_busy(new[0]), *new[1:]])
    assert found.passes
    assert found.notes[0].startswith("left out of NEW: run-2")
    assert "client_cpu" in found.notes[0]
    assert not compare(base, [_busy(new[0]), _busy(new[1]), *new[2:]]).passes
    stalled = run(10, change=lambda plain: replace(plain, levels=(replace(LEVEL, ended_by="stalled"),)))
    assert "level at 8 users is invalid (stalled)" in compare(base, [*new[:4], stalled]).problems[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda plain: replace(plain, end=None), "incomplete"),
        (lambda plain: replace(plain, interrupted=True), "incomplete"),
        (lambda plain: replace(plain, slo={"ttft_p99": 1.0}, levels=(replace(LEVEL, ended_by="stalled"),)), "invalid"),
        (lambda plain: replace(plain, workload={"name": "code"}), "workload differs"),
        (lambda plain: replace(plain, dataset={"sha256": "other"}), "dataset differs"),
        (lambda plain: replace(plain, api="openai-chat"), "api differs"),
        (lambda plain: replace(plain, levels=(replace(LEVEL, users=4),)), "load differs"),
        (lambda plain: replace(plain, emulated=False), "emulated differs"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(change, problem: str) -> None:
    """Never a pass, whichever side it is on."""
    for sides in (([run()], [run(2, change=change)]), ([run(2, change=change)], [run()])):
        found = compare(*sides)
        assert not found.passes
        assert found.verdict == "inconclusive"
        assert problem in found.problems[0]


def test_what_was_asked_differently_is_told_in_words() -> None:
    """The parts that differ, as they were asked for, and not what follows from them."""
    asked = {"name": "chat", "input_tokens": "50", "mean_input_tokens": 50.0, "hash": "a"}
    other = {"name": "chat", "input_tokens": "80", "mean_input_tokens": 80.0, "hash": "b"}
    base = run(change=lambda plain: replace(plain, workload=asked))
    slow = replace(LEVEL, users=None, rate=2.0, arrival=arrival_of("poisson"), warmup=5.0)
    new = run(2, change=lambda plain: replace(plain, workload=other, levels=(slow,), api="openai-chat"))
    problems = [each.partition(": ")[2] for each in compare([base], [new]).problems if " differs " in each]
    assert problems == [
        "input tokens 50 against 80",
        "tgi streamed against openai-chat streamed",
        "8 users for 60.0 s against 2 req/s poisson for 60.0 s after 5.00 s of warm-up",
    ]


@pytest.mark.parametrize(
    ("key", "change"),
    [("model", {"model": "other"}), ("revision", {"revision": "abc"}), ("gpu", {"gpu": "H100"}), ("gpus", {"gpus": 2})],
)
def test_another_model_or_card_is_no_pass(key: str, change: dict[str, Any]) -> None:
    """Unless whoever asks says so; then it is only told."""
    base, new = side(*BASE), side(*NEW, change=lambda plain: replace(plain, **change))
    found = compare(base, new)
    assert not found.passes
    assert f"{key} differs: " in found.problems[0]
    assert f"--allow {key} " in found.problems[0]
    allowed = compare(base, new, same=())
    assert allowed.passes
    assert allowed.differences[0].startswith(f"{key}: ")


def test_repeats_of_two_releases_are_no_repeats() -> None:
    """A side with another engine among its runs is refused, whatever is allowed between the sides."""
    mixed = [*side(*NEW[:4]), run(10, change=lambda plain: replace(plain, engine="tgi 3.3.5"))]
    found = compare(side(*BASE), mixed, same=())
    assert not found.passes
    assert found.problems[0] == (
        "NEW's runs are not of one service: engine is tgi 3.3.7 in run-2-1.008 and tgi 3.3.5 in run-10-1.0"
    )


def test_a_missing_metric_fails_with_its_name() -> None:
    """Answers of one token have no gaps: that is no pass for ITL."""
    short = replace(run(2), records=Records.from_list(closed_loop(LEVEL, tokens=1, spread=0.1)))
    found = compare([run()], [short])
    assert not found.passes
    assert "itl_p50 is missing at 8 users" in found.problems


def test_a_level_that_is_missing_fails() -> None:
    """Both plans had two levels, one run recorded only the first."""
    both = (LEVEL, closed_level(1, 16, 70.0, 60.0))
    found = compare(
        [run(change=lambda plain: replace(plain, levels=both))],
        [run(2, change=lambda plain: replace(plain, levels=both))],
    )
    assert not found.passes
    assert found.problems


def test_what_else_differs_is_told() -> None:
    """Another engine version or setting is what one compares for, not a problem; where it listens is nothing."""
    other = run(2, change=lambda plain: replace(plain, engine="tgi 3.3.5", flags={"CUDA_GRAPHS": "0", "PORT": "8081"}))
    found = compare([run()], [other])
    assert found.differences == ("engine: tgi 3.3.7 -> tgi 3.3.5", "CUDA_GRAPHS: None -> 0")
    assert not found.problems


def test_where_an_engine_listens_and_what_it_is_called_is_no_difference() -> None:
    """Also where these are arguments, as of vLLM and llama.cpp; any other argument is one."""

    def started(*more: str) -> Run:
        args = " ".join(("repo/model --host 127.0.0.1", *more, "--dtype bfloat16"))
        return run(change=lambda plain: replace(plain, flags={"args": args}))

    base = started("--port 49251 --served-model-name ab-a repo/model")
    same = started("--port=8000 --alias x")
    assert differences(base.manifest, same.manifest) == []
    other = started("--port 49251 --max-num-seqs 16")
    assert differences(base.manifest, other.manifest) == [
        "args: repo/model --dtype bfloat16 -> repo/model --max-num-seqs 16 --dtype bfloat16"
    ]


def test_without_a_stream_only_whole_answers_are_compared() -> None:
    """There are no gaps to compare, and that is no missing metric."""

    def plain(each: Manifest) -> Manifest:
        return replace(each, stream=False)

    found = compare(side(*BASE, change=plain), side(*NEW, change=plain))
    figures = {"good_share", "e2e_p50", "e2e_p95", "output_tokens_per_second"}
    assert {change.figure for change in found.gated} == {change.figure for change in found.changes} == figures
    assert found.passes


def bundled(base: Run, tokens: int, faster: float = 1.0) -> Run:
    """The same run with so many tokens an event, told at the end; its answers take as long, divided by `faster`."""

    def changed(record: RequestRecord) -> RequestRecord:
        record = _stretched(record, 1 / faster)
        kept = record.token_at[::tokens]
        return replace(record, token_at=kept, token_count=[1] * len(kept), count_told="per_answer")

    return replace(base, records=Records.from_list([changed(each) for each in base.records.to_list()]))


def test_a_server_that_is_faster_in_larger_steps_is_faster() -> None:
    """Five tokens an event and half the time: gaps are compared per token, and nothing is called slower."""
    level = replace(LEVEL, users=4)
    found = compare(side(*BASE, level=level), [bundled(each, 5, faster=2.0) for each in side(*NEW, level=level)])
    assert {change.figure for change in found.changes} >= {"itl_per_token_p50", "tpot_p50"}
    assert "itl_p50" not in {change.figure for change in found.changes}
    assert verdicts(found, "itl_per_token", "ttft") == {"faster"}
    assert all(change.passes for change in found.gated if change.figure != "good_share")


def test_a_gate_that_names_gaps_compares_gaps() -> None:
    """Whoever bounds them means what a reader sees."""
    found = compare(side(*BASE), [bundled(each, 5) for each in side(*NEW)], Gate({"itl": 0.1}))
    assert verdicts(found, "itl") == {"slower"}
    assert not found.passes


def untold(base: Run) -> Run:
    records = [replace(each, output_tokens=None, count_told=None) for each in base.records.to_list()]
    return replace(base, records=Records.from_list(records))


def test_what_neither_side_tells_is_left_out_and_said() -> None:
    """It speaks neither for nor against; where one side tells it, or the gate names it, it is missing."""
    found = compare([untold(each) for each in side(*BASE)], [untold(each) for each in side(*NEW)])
    assert set(found.left_out) == {
        "tpot_p50 at 8 users: the server tells no counts",
        "output_tokens_per_second at 8 users: the server tells no counts",
    }
    assert found.passes
    assert not {"tpot_p50", "output_tokens_per_second"} & {change.figure for change in found.changes}
    assert compare([run()], [untold(run(2))]).problems
    assert compare([untold(run())], [untold(run(2))], Gate({"tpot_p50": 0.1})).problems


def test_the_same_input_gives_the_same_output() -> None:
    """Resampling is seeded."""
    assert compare([run()], [run(2)]) == compare([run()], [run(2)])


def test_counts_on_a_grid_give_the_quantiles_of_the_samples() -> None:
    """To half a per cent, for ten times as many samples as the grid has points."""
    samples = np.random.default_rng(1).lognormal(size=20_000)
    values = Values(samples, np.arange(20_000) // 4, 0)
    points = grid(np.sort(samples))
    counts = block_counts(values, points)
    assert counts.sum() == len(samples)
    assert len(counts) == block_of_request(values.request)[-1] + 1
    for level in (0.5, 0.95, 0.99):
        found = quantiles_on_grid(counts.sum(axis=0)[None, :], points, level)[0]
        assert found == pytest.approx(np.quantile(samples, level), rel=0.005)
