"""Reports of all that is no single run: capacity searches, probes, comparisons, several side by side."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.drive.kinds import kind_of
from harness.errors import UsageError
from harness.report.capacity import capacity_document
from harness.report.capacity_text import sentence
from harness.report.capacity_text import to_text as text_of
from harness.report.comparison_page import comparison_document
from harness.report.document import Table
from harness.report.drawing import svg
from harness.report.formats import FORMATS, find_format
from harness.report.side_by_side import labels, side_by_side
from harness.report.to_markdown import to_markdown
from harness.report.to_text import to_text
from harness.stats.capacity_file import capacity_from
from harness.stats.capacity_search import CapacitySearch, Goal
from harness.stats.good_share import GOOD_SHARE
from harness.stats.money import NOTHING_ASKED
from harness.stats.run_figure import THROUGHPUT
from tests.commands.test_report import run_folder
from tests.goldens import check_golden
from tests.report.subjects import DOCUMENTS, capacity_report, made_comparison, probe, probe_file, searched
from tests.report.test_reports import RUNS

OTHERS = [name for name in DOCUMENTS if name not in RUNS]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_shows_every_kind(form: Any, name: str) -> None:
    """And none shows a figure that is none."""
    text = form.render(DOCUMENTS[name]())
    assert text.strip()
    for word in (" nan", " inf", ">nan", "NaN,", ": NaN", "Infinity"):
        assert word not in text


@pytest.mark.parametrize("name", OTHERS)
def test_the_markdown_of_every_kind_is_the_expected_one(name: str) -> None:
    """Reviewed as a difference."""
    check_golden(f"report-{name}.md", to_markdown(DOCUMENTS[name]()))


def test_what_capacity_json_says_becomes_the_same_report() -> None:
    """The answer, people and cost are computed anew from the levels, and are those that stand in the file."""
    report = capacity_report((2000, 40.0), (8000, 20.0))
    document = json.loads(json.dumps(report.as_dict()))
    again = json.loads(json.dumps(capacity_from(document).as_dict()))
    assert again == document


def test_a_search_of_an_earlier_version_is_reported() -> None:
    """Without figures of levels, and of the habits only what stood there."""
    document = json.loads(json.dumps(capacity_report((None, 40.0)).as_dict()))
    for cell in document["surface"]:
        for level in cell["levels"]:
            del level["figures"]
    assert capacity_from(document).first.answer == capacity_report((None, 40.0)).first.answer


def write_search(folder: Path) -> Path:
    folder.mkdir()
    (folder / "capacity.json").write_text(json.dumps({"schema": 2, **searched().report.as_dict()}))
    run_folder(folder / "levels-00")
    return folder


def write_probe(folder: Path) -> Path:
    folder.mkdir()
    (folder / "probe.json").write_text(json.dumps(probe_file()))
    return folder


def test_each_folder_is_reported_as_what_it_is(tmp_path: Path) -> None:
    """By the file that it holds; beside it, under its own name."""
    search, found = write_search(tmp_path / "search"), write_probe(tmp_path / "probe")
    assert cli.run(["report", str(search)]) == 0
    assert cli.run(["report", str(found)]) == 0
    assert sorted(path.name for path in search.iterdir()) == ["capacity.json", "levels-00", "report.html", "report.md"]
    assert sorted(path.name for path in found.iterdir()) == ["probe.html", "probe.json"]
    page = (search / "report.html").read_text()
    assert "<h1>Emulated: capacity of qwen2.5-7b on L4" in page  # by the manifest of the run in it
    assert "Between 3" in (search / "report.md").read_text()


def test_several_folders_become_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs, probes and searches side by side, with the answers of all, and rows of all in one CSV."""
    folders = [
        run_folder(tmp_path / "run").path,
        write_search(tmp_path / "search"),
        write_probe(tmp_path / "probe"),
    ]
    before = {path for folder in folders for path in folder.iterdir()}
    command = ["report", *map(str, folders), "--format", "html,csv,json", "--output", str(tmp_path / "out")]
    assert cli.run(command) == 0
    assert {path for folder in folders for path in folder.iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.csv", "report.html", "summary.json"]
    page = (tmp_path / "out/report.html").read_text()
    assert all(f"<h2>{each.name}</h2>" in page for each in folders)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/report.csv").read_text())))
    assert {row["report"] for row in rows} == {"run", "capacity", "probe"}
    assert len(json.loads((tmp_path / "out/summary.json").read_text())["reports"]) == 3


def test_curves_of_several_are_drawn_in_one_chart() -> None:
    """Each under the name by which they differ."""
    document = DOCUMENTS["side_by_side"]()
    sides = next(section for section in document.sections if section.heading == "Side by side")
    table = sides.blocks[0]
    assert isinstance(table, Table)
    assert len(set(table.columns)) == 5
    chart = next(chart for chart in document.charts() if chart.name == "capacity-by-history")
    assert [series.name for series in chart.series] == list(table.columns[1:3])


def test_no_line_is_left_out_where_there_are_many() -> None:
    """Ten runs side by side make two charts of one kind, with other names and all lines between them."""
    folders = [f"run-{number}" for number in range(10)]
    document = side_by_side([replace(DOCUMENTS["sweep"](), name=name) for name in folders])
    charts = [chart for chart in document.charts() if chart.name.startswith("tokens-by-load")]
    assert [chart.name for chart in charts] == ["tokens-by-load", "tokens-by-load-part-2"]
    assert [line.name for chart in charts for line in chart.series] == folders
    assert [chart.title[-8:] for chart in charts] == ["(1 of 2)", "(2 of 2)"]
    assert len({chart.name for chart in document.charts()}) == len(document.charts())


def test_lines_of_a_search_stand_beside_those_of_another() -> None:
    """A chart for each history and figure, with a line for each GPU."""
    charts = [chart for chart in DOCUMENTS["three_gpus"]().charts() if chart.name.startswith("latency-by-load")]
    assert [chart.title for chart in charts] == [
        f"TTFT and ITL by load: {figure} p95, {history} tokens"
        for history in ("2,000", "8,000")
        for figure in ("TTFT", "ITL")
    ]
    assert {tuple(line.name for line in chart.series) for chart in charts} == {("L4", "L40S", "H100")}
    assert charts[0].words.startswith("L4: 447 ms at 20 to 2.24 s at 60 chats. L40S: 447 ms at 45 to")
    assert [[mark.name for mark in chart.marks] for chart in charts[:2]] == [["ttft_p95"], ["itl_p95"]]


def test_the_cheapest_comes_first_as_far_as_it_is_sure() -> None:
    """GPUs for the users asked for, where all were asked; else tokens. What the intervals leave open is said."""
    answer = DOCUMENTS["three_gpus"]().answer
    assert "A month of GPUs for 50,000 users costs least on L4: L4 4,088 USD, L40S 5,548 USD, H100 6,570 USD." in answer
    alike = [capacity_document(searched(gpu, knee, price=price)) for gpu, knee, price in
             (("L4", 40.0, 0.8), ("L40S", 90.0, 1.78))]  # fmt: skip
    assert "A million generated tokens costs least on L40S" in side_by_side(alike).answer
    assert "not told apart: their intervals overlap" in side_by_side(alike).answer


def test_a_comparison_is_drawn_with_its_intervals_and_limits() -> None:
    """One row per figure; what NEW may be worse by stands in each, and a figure that never came has no point."""
    (chart,) = DOCUMENTS["comparison"]().charts()
    slower, open_one, limit = chart.series
    assert (slower.points, slower.intervals) == (((1.5, 0.0),), ((0.0, 1.4, 1.6),))
    assert (open_one.points, open_one.intervals) == (((1.01, 1.0),), ((1.0, 0.9, 1.13),))
    assert limit.points == ((pytest.approx(1.1), 0.0), (pytest.approx(1.1), 1.0))
    assert chart.y.names == ("ttft_p50\nat 8 users", "itl_p50\nat 8 users")
    drawn = svg(chart, 360)
    assert all(word in drawn for word in ("ttft_p50", "itl_p50", "at 8 users", "as BASE", "limit"))
    comparison = made_comparison()
    never = replace(comparison.changes[0], new=math.inf, ci95=(1.4, math.inf))
    assert comparison_document(replace(comparison, changes=(never,))).charts() == ()


@pytest.mark.parametrize(
    ("figure", "base", "expected"), [("ttft_p95", 0.2, 1.25), (THROUGHPUT, 500.0, 0.8), (GOOD_SHARE, 0.5, 0.5)]
)
def test_the_limit_as_a_ratio_is_where_the_gate_breaks(figure: str, base: float, expected: float) -> None:
    """A quarter longer, a quarter more time per token, or a quarter of all requests less."""
    change = replace(made_comparison().changes[0], figure=figure, base=base, limit=0.25, ci95=(expected, expected))
    assert change.limit_ratio == pytest.approx(expected)
    assert change.most_worse == pytest.approx(0.25)


def test_what_is_not_known_is_no_name() -> None:
    """Where one of them does not tell its GPU, they are named by what all of them tell."""
    known, unknown = probe(), probe(gpu=None, model="another")
    assert labels([known, unknown]) == ["qwen2.5-7b", "another"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"unit": "chats"}, "missing required field `model`"),
        ({"unit": "chats", "model": "m", "slo": {}, "surface": []}, "no history was measured"),
        (
            {"unit": "chats", "model": "m", "slo": {}, "surface": [{"history_tokens": 1, "levels": [{}]}]},
            "missing required",
        ),
    ],
)
def test_a_search_that_cannot_be_read_is_one_line(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    """With the file's name."""
    (tmp_path / "capacity.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words) as failure:
        kind_of(tmp_path).read(tmp_path, NOTHING_ASKED)
    assert "capacity.json" in str(failure.value)


def test_a_folder_that_is_nothing_of_this_is_refused(tmp_path: Path) -> None:
    """With the files that would have told."""
    with pytest.raises(UsageError, match=r"no manifest.json and no capacity.json and no probe.json"):
        kind_of(tmp_path)


def test_every_chart_becomes_a_file_on_request(tmp_path: Path) -> None:
    """As SVG in the colours of paper, and as PNG."""
    folder = run_folder(tmp_path / "run").path
    assert cli.run(["report", str(folder), "--format", "json", "--charts", str(tmp_path / "charts")]) == 0
    names = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert "ttft-over-time.svg" in names
    assert len(names) == 2 * len([name for name in names if name.endswith(".png")])
    assert "var(" not in (tmp_path / "charts/ttft-over-time.svg").read_text()
    assert (tmp_path / "charts/ttft-over-time.png").read_bytes()[:4] == b"\x89PNG"


def test_the_batch_curve_names_its_knee() -> None:
    """At eight chats: from there on one more brings less than a quarter of a lone one."""
    chart = next(chart for chart in probe().charts() if chart.name == "tokens-by-batch")
    assert [mark.value for mark in chart.marks] == [8.0]
    assert "knee at 8 chats" in chart.words


def test_a_memory_that_holds_more_than_the_gpu_serves_is_named() -> None:
    """61 chats of 500 tokens fit, and the knee is at 8; not where 15 fit."""
    assert "61 chats of 500 tokens fit, but from 8 on each more brings little" in to_markdown(probe())
    cells = [{**probe_file()["capacity"][0], "chats_fit": 15}]
    assert "brings little" not in to_markdown(probe(capacity=cells))


def test_what_is_emulated_says_so_in_its_title() -> None:
    """Of each kind, and of a page where only some are."""
    assert DOCUMENTS["capacity"]().title.startswith("Emulated: ")
    assert probe(emulated=True).title.startswith("Emulated probe: ")
    assert DOCUMENTS["comparison"]().title.startswith("Emulated runs: ")
    assert DOCUMENTS["side_by_side"]().title.startswith("Partly emulated (")


def test_overload_is_told_from_the_level_at_one_and_a_half_times() -> None:
    """With the share that was met, and that the queue grew."""
    text = to_markdown(DOCUMENTS["capacity"]())
    assert "at 60 chats (1.5 times the estimate) 30.0 % within ttft_p95" in text
    assert "the queue grew to the end" in text
    assert to_text(DOCUMENTS["capacity"]()).splitlines()[0].startswith("Emulated: capacity")
    assert find_format("csv").render(DOCUMENTS["capacity"]()).count("\n") == 13


def test_a_rate_is_told_as_it_came_beside_the_one_that_was_asked_for() -> None:
    """Chance sends more or fewer than were asked for: the table of levels has both, all else speaks of what came."""
    plain = searched()
    of_first = plain.report.first
    told = [replace(each, came=round(each.load * 1.04, 2)) for each in of_first.search.told]
    flows = tuple(replace(flow, load=level.offered) for flow, level in zip(of_first.flows, told, strict=True))
    history = replace(of_first, history=None, search=CapacitySearch(Goal(1.0, False), told), flows=flows)
    report = replace(plain.report, unit="rate", histories=(history,))
    document = capacity_document(replace(plain, report=report, document=report.as_dict()))
    for text in (to_markdown(document), text_of(report), find_format("html").render(document)):
        words = " ".join(text.replace("|", " ").split())
        assert "Requests/s asked for Came" in words or "Requests/s asked for</th>" in text
        assert "which chance makes more or fewer than were asked for" in text
    page = to_markdown(document)
    assert "| 39 | 40.6 | 97.5 % |" in page
    assert "at 62.4 requests/s (1.5 times the estimate)" in page
    for section in ("## SLO and margins", "## Curve", "## History card", "## Overload"):
        part = page.partition(section)[2].partition("\n## ")[0]
        assert not any(asked in part for asked in ("60 requests/s", "| 60 |")), section
    rows = list(csv.DictReader(io.StringIO(find_format("csv").render(document))))
    assert [(float(row["load"]), float(row["came"])) for row in rows] == [(each.load, each.came) for each in told]
    assert "Came" not in to_markdown(DOCUMENTS["capacity"]())


def test_the_cost_of_a_history_is_not_told_beyond_the_histories() -> None:
    """By 1,000 tokens only where they are so far apart: 100 and 400 tokens do not tell what 1,000 more cost."""
    far, near = capacity_report((2000, 40.0), (8000, 20.0)), capacity_report((100, 40.0), (400, 20.0))
    costs = [text_of(each).partition("each further ")[2].partition(", by")[0] for each in (far, near)]
    assert costs == ["1,000 tokens of history cost 3.17 chats", "100 tokens of history cost 6.33 chats"]
    assert near.history_cost is not None
    assert near.as_dict()["per_thousand_history_tokens"] == pytest.approx(63.33, rel=1e-3)


def test_a_limit_without_an_upper_end_is_a_sentence() -> None:
    """As where the levels beyond it were too short to decide."""
    first = capacity_report((None, 40.0)).first
    few = [tuple(replace(share, size=2.0) for share in each.shares) for each in first.search.told[:4]]
    told = [replace(each, shares=shares) for each, shares in zip(first.search.told, few, strict=False)]
    history = replace(first, search=CapacitySearch(Goal(1.0, True), told), flows=first.flows[:4])
    assert history.answer.breaks is None
    assert sentence(history, "users").startswith("At least ")
    assert "users, best estimate" in sentence(history, "users")
    assert sentence(history, "users").endswith("; no load was found that surely breaks it.")
