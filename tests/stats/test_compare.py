"""Two runs: the ratio, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.measure.client import ClientFacts
from harness.measure.record import RequestRecord
from harness.measure.records import Records
from harness.measure.run import Run
from harness.measure.run_folder import Manifest, RunFolder
from harness.stats.compare import Comparison, Gate, compare
from harness.stats.interval import block_of_request
from harness.stats.metrics import Values
from harness.stats.resample import block_counts, grid, quantiles_on_grid
from tests.runs import closed_level, closed_loop, manifest

LEVEL = closed_level(0, 8, 0.0, 60.0)


def run(seed: int = 1, slower: float = 1.0, change: Callable[[Manifest], Manifest] | None = None, level=LEVEL) -> Run:
    """Eight users for a minute; latencies vary by a tenth. slower: all latencies times this."""
    records = [
        replace(record, request_id=f"0-{number}", level=0)
        for number, record in enumerate(closed_loop(replace(level, level=seed), spread=0.1))
    ]
    records = [_stretched(record, slower) for record in records]
    plain = manifest([level], run_id=f"run-{seed}-{slower}")
    return Run(
        RunFolder(Path(f"run-{seed}-{slower}")),
        change(plain) if change else plain,
        Records.from_list(records),
        ClientFacts(),
    )


def _stretched(record: RequestRecord, times: float) -> RequestRecord:
    due = record.scheduled_at
    assert record.finished_at is not None
    token_at = [due + times * (at - due) for at in record.token_at]
    return replace(record, token_at=token_at, finished_at=due + times * (record.finished_at - due))


def verdicts(comparison: Comparison, *metrics: str) -> set[str]:
    return {change.verdict for change in comparison.changes if change.figure.rpartition("_")[0] in metrics}


def test_a_run_against_itself_is_the_same() -> None:
    """Ratio 1, verdict same, gate holds."""
    found = compare([run()], [run()])
    assert found.verdict == "same"
    assert found.passes
    assert {change.ratio for change in found.changes} == {1.0}


def test_twice_the_latency_is_slower_and_breaks_the_gate() -> None:
    """Every latency is named slower, with a ratio of two and an interval around it."""
    found = compare([run()], [run(slower=2.0)])
    assert verdicts(found, "ttft", "itl", "tpot", "e2e") == {"slower"}
    assert (found.verdict, found.passes) == ("slower", False)
    for change in found.changes:
        if change.figure != "output_tokens_per_second":
            assert change.ratio == pytest.approx(2.0)
            assert change.ci95[0] < 2.0 < change.ci95[1]


def test_half_the_latency_is_faster_and_passes() -> None:
    """Better never breaks a gate."""
    found = compare([run(slower=2.0)], [run()])
    assert verdicts(found, "ttft", "itl", "tpot", "e2e") == {"faster"}
    assert found.passes


def test_another_run_of_the_same_thing_is_not_called_a_change() -> None:
    """Other random latencies of the same kind: nothing is slower or faster, and the gate holds."""
    for seed in range(2, 8):
        found = compare([run()], [run(seed)])
        assert {change.verdict for change in found.changes} <= {"same", "inconclusive"}
        assert found.passes


def test_a_real_change_within_the_limit_is_named_but_passes() -> None:
    """Five per cent slower for sure, ten are allowed."""
    found = compare([run()], [run(slower=1.05)])
    assert "slower" in verdicts(found, "itl")
    assert found.passes


def test_limits_hold_per_figure_and_per_metric() -> None:
    """A tighter limit breaks where the default holds."""
    assert not compare([run()], [run(slower=1.05)], Gate({"itl_p50": 0.01})).passes
    assert not compare([run()], [run(slower=1.05)], Gate({"itl": 0.01})).passes
    assert compare([run()], [run(slower=1.2)], Gate(default=0.5)).passes


def test_figures_that_the_gate_names_are_compared_too() -> None:
    """p99 is not among the default ones."""
    assert "ttft_p99" in {change.figure for change in compare([run()], [run()], Gate({"ttft_p99": 0.1})).changes}


def test_less_throughput_is_slower() -> None:
    """The one figure of which more is better."""
    empty = [record for number, record in enumerate(run(3).records.to_list()) if number % 2]
    half = replace(run(3), records=Records.from_list(empty))
    found = next(change for change in compare([run()], [half]).changes if change.figure == "output_tokens_per_second")
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(0.5, rel=0.05)
    assert not found.passes


def test_too_little_data_is_inconclusive_and_fails_only_where_asked() -> None:
    """Few requests cannot exclude a change beyond the limit; the smallest change they could have shown is larger."""
    short = closed_level(0, 1, 0.0, 12.0)
    found = compare([run(1, level=short)], [run(2, level=short)])
    unsure = [change for change in found.changes if change.verdict == "inconclusive"]
    assert unsure
    assert all(change.smallest > 0.05 for change in unsure)
    assert found.passes
    assert not compare([run(1, level=short)], [run(2, level=short)], Gate(inconclusive_fails=True)).passes


def test_repeats_show_the_noise_between_runs() -> None:
    """Runs that differ as a whole: a single pair would call it a change, repeats know better."""
    base, new = [run(1), run(2, 1.3), run(3, 1.1)], [run(4, 1.25), run(5, 1.05), run(6, 1.15)]
    assert "slower" in verdicts(compare(base[:1], new[:1]), "itl")
    assert verdicts(compare(base, new), "itl", "ttft") == {"inconclusive"}


def test_repeats_show_a_change_larger_than_their_noise() -> None:
    """Three and three runs, half as slow again."""
    base, new = [run(seed, 1 + seed / 100) for seed in (1, 2, 3)], [run(seed, 1.5 + seed / 100) for seed in (4, 5, 6)]
    assert verdicts(compare(base, new), "itl", "ttft", "tpot") == {"slower"}


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
    for sides in (([run()], [run(change=change)]), ([run(change=change)], [run()])):
        found = compare(*sides)
        assert not found.passes
        assert found.verdict == "inconclusive"
        assert problem in found.problems[0]


def test_what_was_asked_differently_is_told_in_words() -> None:
    """The parts that differ, as they were asked for, and not what follows from them."""
    asked = {"name": "chat", "input_tokens": "50", "mean_input_tokens": 50.0, "hash": "a"}
    other = {"name": "chat", "input_tokens": "80", "mean_input_tokens": 80.0, "hash": "b"}
    base = run(change=lambda plain: replace(plain, workload=asked))
    slow = replace(LEVEL, users=None, rate=2.0, arrival="poisson", warmup=5.0)
    new = run(change=lambda plain: replace(plain, workload=other, levels=(slow,), api="openai-chat"))
    problems = [each.partition(": ")[2] for each in compare([base], [new]).problems if " differs " in each]
    assert problems == [
        "input tokens 50 against 80",
        "tgi streamed against openai-chat streamed",
        "8 users for 60.0 s against 2 req/s poisson for 60.0 s after 5.00 s of warm-up",
    ]


def test_a_missing_metric_fails_with_its_name() -> None:
    """Answers of one token have no gaps: that is no pass for ITL."""
    short = replace(run(), records=Records.from_list(closed_loop(LEVEL, tokens=1, spread=0.1)))
    found = compare([run()], [short])
    assert not found.passes
    assert "itl_p50 is missing at 8 users" in found.problems


def test_a_level_that_is_missing_fails() -> None:
    """Both plans had two levels, one run recorded only the first."""
    both = (LEVEL, closed_level(1, 16, 70.0, 60.0))
    found = compare(
        [run(change=lambda plain: replace(plain, levels=both))], [run(change=lambda plain: replace(plain, levels=both))]
    )
    assert not found.passes


def test_what_else_differs_is_told() -> None:
    """Another engine version or setting is what one compares for, not a problem."""
    found = compare([run()], [run(change=lambda plain: replace(plain, engine="tgi 3.3.5", flags={"CUDA_GRAPHS": "0"}))])
    assert found.differences == ("engine: tgi 3.3.7 -> tgi 3.3.5", "CUDA_GRAPHS: None -> 0")
    assert found.passes


def test_without_a_stream_only_whole_answers_are_compared() -> None:
    """There are no gaps to compare, and that is no missing metric."""

    def plain(each: Manifest) -> Manifest:
        return replace(each, stream=False)

    found = compare([run(change=plain)], [run(change=plain)])
    assert {change.figure for change in found.changes} == {"e2e_p50", "e2e_p95", "output_tokens_per_second"}
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
    plain = run(1, level=level)
    found = compare([plain], [bundled(run(2, level=level), 5, faster=2.0)])
    assert {change.figure for change in found.changes} >= {"itl_per_token_p50", "tpot_p50"}
    assert "itl_p50" not in {change.figure for change in found.changes}
    assert verdicts(found, "itl_per_token", "tpot", "ttft") == {"faster"}
    assert found.passes


def test_a_gate_that_names_gaps_compares_gaps() -> None:
    """Whoever bounds them means what a reader sees."""
    found = compare([run()], [bundled(run(2), 5)], Gate({"itl": 0.1}))
    assert verdicts(found, "itl") == {"slower"}
    assert not found.passes


def untold(base: Run) -> Run:
    records = [replace(each, output_tokens=None, count_told=None) for each in base.records.to_list()]
    return replace(base, records=Records.from_list(records))


def test_what_neither_side_tells_is_left_out_and_said() -> None:
    """It speaks neither for nor against; where one side tells it, or the gate names it, it is missing."""
    found = compare([untold(run())], [untold(run(2))])
    assert found.left_out == (
        "tpot_p50 at 8 users: the server tells no counts",
        "output_tokens_per_second at 8 users: the server tells no counts",
    )
    assert found.passes
    assert not {"tpot_p50", "output_tokens_per_second"} & {change.figure for change in found.changes}
    assert not compare([run()], [untold(run(2))]).passes
    assert not compare([untold(run())], [untold(run(2))], Gate({"tpot_p50": 0.1})).passes


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
