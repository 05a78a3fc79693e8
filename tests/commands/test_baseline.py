"""Stored repeats, and what may be compared with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.commands import baseline
from harness.commands.compare import compare, compare_with_baseline
from harness.drive import baselines
from harness.drive.baseline_store import FolderStore, store_at
from harness.errors import UsageError
from tests.commands.test_compare import BASE, NEW, folder, repeats


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A folder with the baseline `chat`."""
    baseline.save("chat", [repeats(tmp_path / "base", BASE)], str(tmp_path / "kept"))
    return str(tmp_path / "kept")


def test_a_baseline_outlives_its_runs_and_judges_others(tmp_path: Path, place: str) -> None:
    """No worse: 0; twice as slow: 1."""
    (tmp_path / "base").rename(tmp_path / "gone")
    assert compare_with_baseline("chat", [repeats(tmp_path / "new", NEW)], place).exit_code == 0
    slow = compare_with_baseline(
        "chat", [repeats(tmp_path / "slow", NEW, gap=0.04)], place, junit=tmp_path / "result.xml"
    )
    assert (slow.exit_code, slow.as_json()["verdict"]) == (1, "slower")
    assert (tmp_path / "result.xml").exists()


def test_figures_alone_judge_as_the_records_do(tmp_path: Path, place: str) -> None:
    """To the last digit, whatever the gate names; they are a fraction of the size, and records are kept on request."""
    (tmp_path / "gate.yaml").write_text("limits: {tpot_p99: 5%, itl: 5%, queue: 5%, service_ttft_p90: 5%}")
    baseline.save("whole", [tmp_path / "base"], place, records=True)
    new = repeats(tmp_path / "new", NEW, gap=0.021)
    small, whole = (
        compare_with_baseline(name, [new], place, gate=tmp_path / "gate.yaml").as_json() for name in ("chat", "whole")
    )
    assert small.pop("base") == [each.replace("whole", "chat") for each in whole.pop("base")]
    assert small == whole
    assert {"tpot_p99", "itl_p95", "service_ttft_p90"} <= set(small["metrics"])
    files = {each.name for each in (Path(place) / "chat" / "repeat-00").iterdir()}
    assert files == {"manifest.json", "figures.json"}
    assert (Path(place) / "whole" / "repeat-00" / "records.parquet").exists()
    sizes = [sum(each.stat().st_size for each in (Path(place) / name).rglob("*.*")) for name in ("chat", "whole")]
    assert sizes[0] < sizes[1] / 5


def test_figures_know_their_run_again_and_are_no_run(tmp_path: Path, place: str) -> None:
    """A run that is in the baseline is no candidate for it, and a folder without records is not taken for a run."""
    found = compare_with_baseline("chat", [tmp_path / "base"], place)
    assert "hold the same run" in found.as_text()
    assert found.exit_code == 1
    with pytest.raises(UsageError, match="--baseline NAME"):
        compare([Path(place) / "chat"], [repeats(tmp_path / "new", NEW)])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"schema": 1', '"schema": 2', "another version"),
        ('"usual": ', '"usual": -', "not a positive number"),
        ('"ttft_p50": [', '"ttft_p50": [-', "not a positive number"),
        ('"ttft_p50": [', '"ttft_p50": [1e999, ', "not as expected"),
        ('"due": ', '"due": -', "not_good"),
        ('"levels": [', '"levels": [7, ', "not as expected"),
        ("{", "", "not valid JSON"),
    ],
)
def test_damaged_figures_are_said_in_one_line(tmp_path: Path, place: str, before: str, after: str, words: str) -> None:
    """Not a pass, and not a traceback."""
    path = Path(place) / "chat" / "repeat-01" / "figures.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UsageError, match=words) as raised:
        compare_with_baseline("chat", [repeats(tmp_path / "new", NEW)], place)
    assert "\n" not in str(raised.value)
    assert "figures.json" in str(raised.value)


def test_it_says_what_it_is_of_and_how_much_its_runs_differ(place: str) -> None:
    """As a list, whole, and as JSON."""
    shown = baseline.show("chat", place)
    assert (shown.baseline.key["model"], shown.baseline.key["gpu"]) == ("demo", "L4")
    assert {figure for _, figure, _ in shown.baseline.spreads} >= {"ttft_p50", "itl_p50"}
    assert "  load: 8 users" in shown.as_text()
    assert "{" not in shown.as_text()
    assert "chat" in baseline.listed(place).as_text()
    assert json.loads(json.dumps(baseline.listed(place).as_json()))[0]["name"] == "chat"


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"engine": "tgi 3.3.6"}, "engine"), ({"gpu": "H100"}, "gpu"), ({"harness_version": "9"}, "harness_version")],
)
def test_another_key_fails_with_what_differs(tmp_path: Path, place: str, changes: dict, key: str) -> None:
    """In every output, unless it was allowed."""
    new = repeats(tmp_path / "new", NEW, **changes)
    found = compare_with_baseline("chat", [new], place, junit=tmp_path / "result.xml")
    assert found.exit_code == 1
    assert f"{key} differs: " in found.as_text()
    assert f"--allow {key}" in (tmp_path / "result.xml").read_text()
    assert compare_with_baseline("chat", [new], place, allow=f"driver, {key}").exit_code == 0


def test_compare_and_baseline_check_are_the_same(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, with several runs as NEW; without --baseline there must be two sides."""
    monkeypatch.chdir(tmp_path)
    new = sorted(str(each) for each in repeats(Path("new"), NEW).iterdir())
    assert cli.run(["compare", "--baseline", "chat", *new, "--store", "kept", "--json"]) == 0
    found = capsys.readouterr().out
    assert cli.run(["baseline", "check", "chat", "new", "--store", "kept", "--json"]) == 0
    assert capsys.readouterr().out == found
    assert cli.run(["compare", *new]) == 2
    assert "expected BASE and NEW, found 3 arguments" in capsys.readouterr().err
    assert cli.run(["compare", f"{new[0]},,{new[1]}", new[2]]) == 2
    assert "no name between two commas" in capsys.readouterr().err


def test_another_question_cannot_be_allowed(tmp_path: Path, place: str) -> None:
    """Its figures are those of something else."""
    new = repeats(tmp_path / "new", NEW, workload={"name": "code"})
    assert "workload differs" in compare_with_baseline("chat", [new], place).as_text()
    with pytest.raises(UsageError, match="unknown key 'workload'"):
        compare_with_baseline("chat", [new], place, allow="workload")


def test_a_writer_that_was_killed_in_the_middle_leaves_the_one_before(place: str, tmp_path: Path) -> None:
    """Whoever reads or writes next finds it, and the next one can take its place."""
    one = Path(place) / "chat"
    one.rename(one.with_name(".chat.old"))
    assert [each.name for each in baseline.listed(place).found] == ["chat"]
    one.rename(one.with_name(".chat.old"))
    one.with_name(".chat.new").mkdir()
    baseline.promote("chat", [repeats(tmp_path / "new", NEW)], "new", place)
    assert len(baseline.show("chat", place).baseline.saved) == 2
    assert sorted(each.name for each in Path(place).iterdir()) == ["chat"]


def test_what_makes_no_baseline_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    """Too few runs, one that was cut off, a name that is no name; and a second one of the same name."""
    kept = tmp_path / "kept"
    for seeds, changes, name, words in (
        (BASE[:2], {}, "chat", "at least 3 runs"),
        (BASE, {"end": None}, "chat", "incomplete"),
        (BASE, {}, "../chat", "expected letters"),
    ):
        with pytest.raises(UsageError, match=words):
            baseline.save(name, [repeats(tmp_path / f"{words}-runs", seeds, **changes)], str(kept))
    base = repeats(tmp_path / "twice", BASE)
    with pytest.raises(UsageError, match="hold the same run"):
        baseline.save("chat", [base, base / "repeat-00"], str(kept))
    other = folder(tmp_path / "other", seed=9, engine="tgi 3.3.6")
    with pytest.raises(UsageError, match="not of one service: engine is"):
        baseline.save("chat", [base, other], str(kept))
    assert not list(kept.glob("*"))
    base = repeats(tmp_path / "base", BASE)
    baseline.save("chat", [base], str(kept))
    with pytest.raises(UsageError, match="promote"):
        baseline.save("chat", [base], str(kept))
    with pytest.raises(UsageError, match="Known: chat"):
        compare_with_baseline("chta", [base], str(kept))
    with pytest.raises(UsageError, match="unknown key 'gpus_'"):
        compare_with_baseline("chat", [repeats(tmp_path / "new", NEW)], str(kept), allow="gpus_")


def test_a_promoted_baseline_says_why(tmp_path: Path, place: str) -> None:
    """The runs are the newer ones; the reason stays, and an empty one is none."""
    newer = repeats(tmp_path / "new", NEW, gap=0.03)
    with pytest.raises(UsageError, match="--reason"):
        baseline.promote("chat", [newer], " ", place)
    baseline.promote("chat", [newer], "safer kernel", place)
    assert [each.reason for each in baseline.show("chat", place).baseline.saved] == [None, "safer kernel"]
    assert "safer kernel" in baseline.show("chat", place).as_text()
    assert compare_with_baseline("chat", [repeats(tmp_path / "same", (6, 7, 8), gap=0.03)], place).exit_code == 0
    assert not [each for each in Path(place).iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("store", ["folder", "branch"])
def test_of_writers_at_once_one_is_kept_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Four that saw no baseline save under one name: what is there is whole and one writer's; three are refused."""
    place, count = str(tmp_path / "kept"), 4
    if store == "branch":
        subprocess.run(["git", "init", "-q", str(tmp_path / "repository")], check=True)
        monkeypatch.chdir(tmp_path / "repository")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        place = "git:perf/baselines"
    sides = [repeats(tmp_path / f"side-{number}", BASE, model=f"model-{number}") for number in range(count)]
    together, told, plain = threading.Barrier(count), dict[int, str](), baselines.spreads_of

    def all_have_looked(runs: Any) -> Any:
        together.wait(60)
        return plain(runs)

    def write(number: int) -> None:
        try:
            baseline.save("chat", [sides[number]], place)
        except UsageError as error:
            told[number] = str(error)

    def slowly(*paths: Any) -> Any:
        time.sleep(0.1)  # in which another writer would pass the same check
        return copytree(*paths)

    copytree = shutil.copytree
    monkeypatch.setattr(shutil, "copytree", slowly)
    monkeypatch.setattr(baselines, "spreads_of", all_have_looked)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(told) == count - 1
    assert all("chat was changed by another meanwhile" in text for text in told.values())
    (winner,) = set(range(count)) - set(told)
    assert baseline.show("chat", place).baseline.key["model"] == f"model-{winner}"
    found = baselines.runs_of("chat", store_at(place))
    assert [run.manifest.model for run in found] == [f"model-{winner}"] * 3
    if store == "folder":
        assert [each.name for each in (tmp_path / "kept").iterdir()] == ["chat"]


def test_who_promotes_over_what_another_promoted_is_told(tmp_path: Path, place: str) -> None:
    """The one that was read is no longer there: nobody's reason is lost."""
    store, newer = FolderStore(Path(place)), tmp_path / "newer"
    shutil.copytree(Path(place) / "chat", newer)
    seen = store.folder("chat")
    baseline.promote("chat", [repeats(tmp_path / "new", NEW)], "the first", place)
    with pytest.raises(UsageError, match="changed by another meanwhile"):
        store.put("chat", newer, seen)
    assert [each.reason for each in baseline.show("chat", place).baseline.saved] == [None, "the first"]
