"""`harness history`: from run folders and baselines to pages and exports."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from harness import cli
from harness.commands import baseline
from harness.commands.history import history
from harness.errors import UsageError
from tests.commands.test_compare import BASE, NEW, folder, repeats

ALL = ("html,markdown", "csv", "json", "bencher", "github-action-benchmark", "openmetrics")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five nights at 20 ms between tokens, five at 25 ms with another release; a run on another card; a damaged one."""
    root = tmp_path_factory.mktemp("history") / "reports"
    for night in range(10):
        release, gap = ("tgi 3.3.7", 0.02) if night < 5 else ("tgi 3.3.8", 0.025)
        folder(root / f"night-{night}", seed=night, gap=gap, engine=release, commit=f"{night:012x}")
    folder(root / "other", seed=10, gpu="H100")
    folder(root / "cut", seed=11, end=None)
    (root / "damaged").mkdir()
    (root / "damaged" / "manifest.json").write_text("{")
    return root


def test_every_form_holds_the_same_step(place: Path, tmp_path: Path) -> None:
    """The sixth night is the first of the new release, in each of the files."""
    found = history(None, [place], lambda line: None, formats=ALL, output=tmp_path)
    assert {path.name for path in found.paths} == {path.name for path in tmp_path.iterdir()}
    series = found.as_json()["series"]
    assert [len(each["points"]) for each in series] == [10, 1]
    itl = next(each for each in series[0]["figures"] if each["figure"] == "itl_p50")
    assert [each["at"] for each in itl["change_points"]] == [5]
    assert itl["change_points"][0]["ratio"] == pytest.approx(1.25, rel=0.02)
    assert series[0]["points"][5]["changed"][0] == "engine tgi 3.3.7 -> tgi 3.3.8"
    assert json.loads((tmp_path / "history.json").read_text())["series"] == series
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert {row["point"] for row in rows if row["change_point"] == "true"} == {"6"}
    for name in ("history.md", "history.html"):
        text = (tmp_path / name).read_text()
        assert "at 6 of 10" in text
        assert "tgi 3.3.8" in text
        assert "Emulated runs over time" in text
    assert "<svg" in (tmp_path / "history.html").read_text()


def test_what_is_no_point_is_named(place: Path, tmp_path: Path) -> None:
    """A run that was cut off, and a damaged one; neither ends the page."""
    found = history(None, [place], lambda line: None, formats=["markdown"], output=tmp_path)
    left = sorted(found.as_json()["left_out"])
    assert ["cut" in left[0], "incomplete" in left[0], "damaged" in left[1]] == [True] * 3
    assert "incomplete" in (tmp_path / "history.md").read_text()


def test_others_read_the_exports(place: Path, tmp_path: Path) -> None:
    """Bencher's and github-action-benchmark's fields of the newest point; OpenMetrics with a moment per point."""
    history(None, [place], lambda line: None, formats=ALL[3:], output=tmp_path)
    bencher = json.loads((tmp_path / "history.bencher.json").read_text())
    assert len(bencher) == 2
    for name, measures in bencher.items():
        assert name.startswith("emulated demo on ")
        assert all(set(value) == {"value"} and value["value"] > 0 for value in measures.values())
    itl = next(measures["itl_p50"]["value"] for name, measures in bencher.items() if "L4" in name)
    assert itl == pytest.approx(0.025, rel=0.02)
    smaller, bigger = (
        json.loads((tmp_path / f"history.{which}-is-better.json").read_text()) for which in ("smaller", "bigger")
    )
    assert {each["unit"] for each in smaller} == {"s"}
    assert {each["unit"] for each in bigger} == {"tokens/s", "share"}
    assert all({"name", "unit", "value"} <= set(each) for each in [*smaller, *bigger])
    assert len({each["name"] for each in [*smaller, *bigger]}) == len(smaller) + len(bigger)
    families = list(text_string_to_metric_families((tmp_path / "history.openmetrics.txt").read_text()))
    gauge = next(each for each in families if each.name == "harness_itl_p50_seconds")
    assert (gauge.type, gauge.unit) == ("gauge", "seconds")
    share = next(each for each in families if each.name == "harness_good_share_ratio")
    assert {sample.value for sample in share.samples} == {1.0}
    l4 = [sample for sample in gauge.samples if "L4" in sample.labels["series"]]
    assert len(l4) == 10
    assert [float(sample.timestamp) for sample in l4] == sorted(float(sample.timestamp) for sample in l4)


def test_a_baseline_s_own_past_stays_when_its_runs_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved and promoted: two points, from the baseline alone; with the runs there they are not counted twice."""
    monkeypatch.chdir(tmp_path)
    old, new = repeats(Path("reports/old"), BASE), repeats(Path("reports/new"), NEW, gap=0.03, engine="tgi 3.3.8")
    folder(Path("reports/other"), gpu="H100")
    baseline.save("chat", [old])
    baseline.promote("chat", [new], "a new kernel")
    both = history("chat", [], lambda line: None, formats=["json"])
    assert [[point["name"] for point in each["points"]] for each in both.as_json()["series"]] == [
        ["baseline chat", "baseline chat"]
    ]
    for each in ("old", "new"):
        shutil.rmtree(f"reports/{each}")
    alone = history("chat", [], lambda line: None, formats=["json"])
    assert alone.as_json()["series"] == both.as_json()["series"]
    assert alone.as_json()["series"][0]["points"][1]["runs"] == 3


def test_wrong_usage_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format, a folder and a baseline that there are not; nothing at all is no failure."""
    monkeypatch.chdir(tmp_path)
    for arguments, words in (
        ({"formats": ["pdf"]}, "unknown format 'pdf'"),
        ({"folders": [Path("nowhere")]}, "no such folder"),
        ({"name": "chat"}, "no baseline 'chat'"),
    ):
        with pytest.raises(UsageError, match=words):
            history(**{"name": None, "folders": [], "progress": lambda line: None, **arguments})
    assert cli.run(["history"]) == 0
    assert "No run to show." in Path("reports/history/history.md").read_text()
