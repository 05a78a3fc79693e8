"""`harness ab`: two variants in turn, asked the same, and one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.commands import ab as module
from harness.commands.ab import ab, is_decided, look, turns
from harness.drive.bench_options import BenchOptions, plan_of
from harness.drive.bench_plan import BenchPlan
from harness.drive.bench_run import PlannedRun
from harness.errors import Interrupted, UsageError
from harness.measure.run_folder import RunFolder, read_manifest
from harness.serve.target import Target
from harness.stats import compare as judging
from harness.stats.comparison import Comparison
from harness.stats.gate import Gate
from tests.stats.looks_cells import drawn_run, session
from tests.stats.test_compare import BASE, NEW, compare, found_for, side

TARGET = Target(model="qwen2.5-0.5b", runtime="embedded")


def test_two_engines_take_turns_and_are_asked_the_same(tmp_path: Path) -> None:
    """A, B, B, A; each pair by one seed; the sides are those that were asked for."""
    options = plan_of(BenchOptions(users="2", duration="2s", warmup="0s", output_tokens="8", output=tmp_path / "ab"))
    found = ab(TARGET, [], ["engine=vllm"], options, lambda line: None, repeats=2)
    made = {
        f"{letter}{number}": read_manifest(RunFolder.open(tmp_path / "ab" / letter / f"repeat-{number:02}"))
        for letter in "ab"
        for number in range(2)
    }
    assert sorted(made, key=lambda name: made[name].start) == ["a0", "b0", "b1", "a1"]
    assert {name: each.engine.split()[0] for name, each in made.items()} == {
        "a0": "tgi", "a1": "tgi", "b0": "vllm", "b1": "vllm",
    }  # fmt: skip
    assert made["a1"].seeds == made["b1"].seeds != made["a0"].seeds
    assert {each.api for each in made.values()} == {"openai-chat"}
    assert {each.model for each in made.values()} == {"qwen2.5-0.5b"}
    assert "B (qwen2.5-0.5b engine=vllm)" in found.sentence
    assert "(emulated)" in found.sentence
    assert not [problem for problem in found.comparison.problems if "differs" in problem]


def test_the_order_balances_the_sides() -> None:
    """Neither side is always the first of its pair."""
    assert "".join("AB"[turn] for turn in turns(4)) == "ABBAABBA"


def test_slower_must_be_so_once_more() -> None:
    """The same is decided at once; an open figure and a problem decide nothing."""
    same, slow = compare(side(*BASE), side(*NEW)), compare(side(*BASE), side(*NEW, slower=1.5))
    assert is_decided([same])
    assert not is_decided([slow])
    assert not is_decided([same, slow])
    assert is_decided([slow, slow])
    assert not is_decided([compare(side(*BASE)[:1], side(*NEW)[:1])])
    assert not is_decided([replace(same, problems=("incomplete",))])


def test_the_time_that_is_given_counts_starts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of a minute takes 100 s with its start: of 790 s a fourth pair would need 800."""
    made, clock = [iter(side(*BASE)), iter(side(*NEW, slower=1.5))], [0.0]

    def taken(asked: Iterable[PlannedRun], progress: object) -> Iterator[SimpleNamespace]:
        for each in asked:
            clock[0] += 100.0
            yield SimpleNamespace(interrupted=False, folder=(each.name or "")[0])

    monkeypatch.setattr(module, "run_series", taken)
    monkeypatch.setattr(module, "read_run", lambda letter: next(made["AB".index(letter)]))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    ab(TARGET, [], ["engine=vllm"], BenchPlan(output=tmp_path / "ab"), lambda line: None, until_decided="790s")
    assert clock == [600.0]


@pytest.mark.parametrize(("ended", "advice"), [(1, "No run of each side"), (2, "takes what was run")])
def test_who_interrupts_is_told_what_can_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int, advice: str
) -> None:
    """Nothing before both sides have a run: a folder of B may not even be there."""

    def taken(asked: Iterable[PlannedRun], progress: object) -> Iterator[SimpleNamespace]:
        for place, each in enumerate(asked):
            yield SimpleNamespace(interrupted=place == ended, folder=(each.name or "")[0])

    monkeypatch.setattr(module, "run_series", taken)
    monkeypatch.setattr(module, "read_run", lambda letter: side(*BASE)[0])
    with pytest.raises(Interrupted) as raised:
        ab(TARGET, [], ["engine=vllm"], BenchPlan(output=tmp_path / "ab"), lambda line: None)
    assert advice in str(raised.value.advice)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [((), (), "both sides are the same"), ((), ("dtype=float13",), "float13"), (("x",), (), "expected KEY=VALUE")],
)
def test_what_is_wrong_with_a_side_is_said_before_anything_runs(
    tmp_path: Path, a: tuple[str, ...], b: tuple[str, ...], words: str
) -> None:
    """And no folder is made."""
    with pytest.raises(UsageError, match=words):
        ab(TARGET, a, b, BenchPlan(output=tmp_path / "ab"), lambda line: None)
    assert not (tmp_path / "ab").exists()


def test_many_looks_are_as_sure_as_one() -> None:
    """Of sessions of the same thing, with up to twenty looks each, hardly one is called slower; a service that is a
    fifth slower is, and its gate is broken.
    """

    def ends(slower: float, count: int) -> list[Comparison]:
        random = np.random.default_rng(1)
        return [list(session(random, 0.03, 0.02, slower, 22))[-1] for _ in range(count)]

    same, slow = ends(0.0, 60), ends(0.2, 15)
    assert sum(any(each.verdict == "slower" for each in found.gated) for found in same) <= 2
    assert all(any(each.passes is False for each in found.gated) for found in slow)


def test_a_look_among_many_is_more_careful_and_says_so() -> None:
    """The same runs have wider intervals where there may be twenty pairs than where these are all."""
    random = np.random.default_rng(1)
    runs = [[drawn_run(random, letter, 2 * at, 0.02, 0.02, 0.0) for at in range(5)] for letter in "ab"]
    one, many = (look((runs[0], runs[1]), Gate(), *asked) for asked in ((1, 5), (3, 20)))
    plain = judging.compare(*runs, same=())
    for figure in ("ttft_p50", "good_share"):
        widths = [found_for(each, figure).ci95[1] - found_for(each, figure).ci95[0] for each in (plain, one, many)]
        assert widths[0] < widths[1] < widths[2]
    assert many.notes[-1] == "compared 3 times: each interval is of 99.1 %, so that all looks together have 95 %"
