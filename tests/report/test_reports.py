"""Every format, for every kind of run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from harness.errors import UsageError
from harness.measure.arrivals import arrival_of
from harness.measure.client import ClientFacts, ClientSample, Floor
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.report.document import Verdict
from harness.report.formats import FORMATS, find_format
from harness.report.run import run_document
from harness.report.to_html import to_html
from harness.report.to_markdown import to_markdown
from harness.report.to_text import to_text
from harness.stats.summary import Summary, summarise
from harness.units import format_percent
from tests.goldens import check_golden
from tests.runs import closed_level, closed_loop, failed, manifest, open_level, ticking

SLO = {"ttft_p95": 0.35, "itl_p95": 0.06}


def sweep() -> Summary:
    """Three levels; the highest breaks the SLO."""
    levels = [closed_level(number, users, 70.0 * number, 60.0) for number, users in enumerate((2, 8, 16))]
    records = [
        record
        for level, first, gap in zip(levels, (0.1, 0.2, 0.5), (0.01, 0.02, 0.04), strict=True)
        for record in closed_loop(level, first, gap, tokens=20, spread=0.1)
    ]
    records += [failed(90_000 + number, 150.0 + number, level=2) for number in range(3)]
    samples = tuple(ClientSample(float(at), "0", 0.25, 0.002, streams=16, events=100) for at in range(210))
    facts = ClientFacts(samples, floor=Floor(0.0005, 0.0001, 64))
    return summarise(Records.from_list(records), manifest(levels, slo=SLO), facts)


def single(**changes) -> Summary:
    level = open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("constant"))
    return summarise(Records.from_list([ticking(n, n / 10) for n in range(600)]), manifest([level], **changes))


def killed() -> Summary:
    level = Level(0, users=2, duration=60.0, started_at=0.0)
    records = [record for record in closed_loop(closed_level(0, 2, 0.0, 60.0)) if record.scheduled_at < 20]
    return summarise(Records.from_list(records), manifest([level, Level(1, users=4)], end=None))


def one_request() -> Summary:
    """The least that is a run."""
    level = closed_level(0, 1, 0.0, 2.0, warmup=0.0)
    return summarise(Records.from_list([ticking(0, 0.1)]), manifest([level], slo=SLO))


def nothing() -> Summary:
    return summarise(Records.from_list([]), manifest([Level(0, users=2)], end=None))


def unlike_levels() -> Summary:
    """Levels that lack what others have: nothing in the window, answers of one token, and everything."""
    levels = [closed_level(0, 1, 0.0, 8.0, warmup=7.9), closed_level(1, 2, 20.0, 8.0), closed_level(2, 4, 40.0, 8.0)]
    early = [ticking(0, 0.0, tokens=300)]
    return summarise(
        Records.from_list(early + closed_loop(levels[1], tokens=1) + closed_loop(levels[2])), manifest(levels)
    )


def nothing_completed() -> Summary:
    level = open_level(0, 10.0, 0.0, 60.0)
    return summarise(Records.from_list([failed(n, n / 10, "refused") for n in range(600)]), manifest([level], slo=SLO))


def not_told() -> Summary:
    """A server that tells no counts, with bounds of the entry on what nobody can know."""
    level = open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("constant"))
    silent = {"output_tokens": None, "input_tokens": None, "count_told": None}
    records = [ticking(n, n / 10, **silent) for n in range(600)]
    return summarise(Records.from_list(records), manifest([level], slo={"tpot_p50": 0.06}))


def one_piece() -> Summary:
    """Two levels behind something that holds the streams back, and one behind which it gave up streaming."""
    levels = [open_level(number, 10.0 * (number + 1), 70.0 * number, 60.0) for number in range(3)]
    records = [
        ticking(n, level.started_at + n / level.rate, level=level.level)
        for level in levels
        if level.rate and level.started_at is not None
        for n in range(int(60 * level.rate))
    ]
    for record in records:
        record.token_at = record.token_at[-1:] * 11
        if record.level == 2:
            record.token_at, record.token_count = record.token_at[:1], [11]
            record.notes = "not_streamed:application/json"
    return summarise(Records.from_list(records), manifest(levels, slo=SLO, slo_asked=True))


def several_tokens() -> Summary:
    """Five tokens an event, told at the end, and some answers of which nobody saw anything."""
    level = open_level(0, 10.0, 0.0, 60.0, arrival=arrival_of("constant"))
    records = [
        ticking(n, n / 10, output_tokens=55, asked_output_tokens=55, count_told="per_answer") for n in range(600)
    ]
    for record in records[::100]:
        record.token_at, record.token_count, record.notes = [], [], "invisible"
    return summarise(Records.from_list(records), manifest([level]))


_MAKERS = {
    "sweep": sweep,
    "single": single,
    "killed": killed,
    "one_request": one_request,
    "nothing": nothing,
    "nothing_completed": nothing_completed,
    "unlike_levels": unlike_levels,
    "not_told": not_told,
    "one_piece": one_piece,
    "several_tokens": several_tokens,
}
RUNS = {name: cache(make) for name, make in _MAKERS.items()}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_every_format_shows_every_kind_of_run(format, run: str) -> None:
    """No run is too broken for a report, and none shows a figure that is none."""
    text = format.render(run_document(RUNS[run]()))
    assert text.endswith("\n") or format.name == "text"
    for word in (" nan", " inf", ">nan", "NaN,", ": NaN", "Infinity"):
        assert word not in text


@pytest.mark.parametrize("run", RUNS)
def test_the_markdown_of_every_kind_of_run_is_the_expected_one(run: str) -> None:
    """Reviewed as a difference."""
    check_golden(f"report-{run}.md", to_markdown(run_document(RUNS[run]())))


class _Links(HTMLParser):
    """What a page would load, and whether its tags are closed."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {value}" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("run", RUNS)
def test_the_page_is_whole_and_loads_nothing(run: str) -> None:
    """One file that works offline: no address to fetch, every tag closed."""
    page = to_html(run_document(RUNS[run]()))
    parser = _Links()
    parser.feed(page)
    assert parser.loads == []
    assert parser.open == []
    assert "url(" not in page.partition("</style>")[0]


def test_the_page_has_its_charts_with_words_of_their_own() -> None:
    """Capacity, latency over time, and the distributions of TTFT and ITL, each with points to draw."""
    document = run_document(sweep())
    page = to_html(document)
    assert [chart.name for chart in document.charts()] == [
        *("ttft-by-load", "itl-by-load", "tokens-by-load"),
        *("ttft-over-time", "itl-over-time", "tokens-over-time", "in-flight-over-time"),
        *("ttft-distribution", "itl-distribution"),
    ]
    assert page.count("<figcaption") == len(document.charts())
    for chart in document.charts():
        assert f'aria-labelledby="{chart.name}-name"' in page
        assert any(re.search(r"\d", word) for word in chart.words.split())
        assert 1 < sum(len(series.points) for series in chart.series) < 1000  # aggregated, whatever the run's size


def test_ids_in_the_page_are_of_one_element_each() -> None:
    """Pictures number their clips from zero; two of one page must not share them."""
    ids = re.findall(r'\sid="([^"]*)"', to_html(run_document(sweep())))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        (
            not_told,
            [
                "not told",
                "The SLO (tpot_p50 <= 60.0 ms) cannot be judged: the server tells no counts (tpot_p50).",
                "Note: the server tells no counts for 100 % of the answers",
                "Note: tpot_p50 cannot be judged: the server tells no counts. Have it tell `usage`",
            ],
        ),
        (
            one_piece,
            [
                "in one piece",
                "not streamed",
                "itl_p95 cannot be judged: the answers came in one piece",
                "the server did not stream 1,620 of 1,620 answers (content-type application/json)",
                "--no-stream",
            ],
        ),
        (several_tokens, ["Note: 5 of 540 answers completed without any visible token"]),
    ],
)
def test_the_terminal_says_what_cannot_be_had_and_why(run: Callable[[], Summary], lines: list[str]) -> None:
    """Not only the report: a word in the table, and the cause with what to do."""
    text = to_text(run_document(run()))
    assert [line for line in lines if line not in text] == []
    assert "0.00 tokens" not in text


def test_a_chart_that_would_be_empty_is_not_drawn() -> None:
    """Without counts there is no curve of tokens, without a stream none of first tokens."""
    page = to_html(run_document(not_told()))
    assert "tokens-over-time" not in page
    assert "itl-over-time" in page
    whole = to_html(run_document(single(stream=False)))
    assert "ttft-distribution" not in whole
    assert "ttft-over-time" not in whole


def test_the_title_says_that_a_run_was_emulated() -> None:
    """Everywhere, first of all."""
    assert to_markdown(run_document(single())).startswith("# Emulated run: ")
    assert "<title>Emulated run: " in to_html(run_document(single()))
    assert "Emulated" not in to_markdown(run_document(single(emulated=False)))


def test_an_incomplete_run_is_marked_before_any_figure() -> None:
    """With what is missing."""
    text = to_markdown(run_document(killed()))
    assert text.index("Incomplete") < text.index("## Levels")
    assert "1 of 2 levels began" in text


def test_what_people_wrote_cannot_become_markup() -> None:
    """A model's name or an error is text, in the page and in the tables."""
    hostile = "</script><script>alert(1)</script>|x"
    page = to_html(run_document(single(model=hostile, workload={"name": hostile})))
    assert "<script>alert" not in page
    assert "\\|x" in to_markdown(run_document(single(model=hostile)))


HOSTILE = "\x1b[2J\x00\u202e\ud800<img src=x onerror=alert(1)>[a](http://b)![c](d)**e**`|f`\n# g\n]]>&lt;'\"|=1+1"


@pytest.mark.parametrize("form", [each.name for each in FORMATS])
def test_no_format_hands_on_what_its_reader_would_act_on(form: str) -> None:
    """Names of models, engines and data, addresses, messages: Markdown, a terminal, a browser, a spreadsheet."""
    changes = {"model": HOSTILE, "engine": HOSTILE, "url": HOSTILE, "run_id": f"={HOSTILE}", "command": (HOSTILE,)}
    text = find_format(form).render(run_document(single(**changes, workload={"name": HOSTILE})))
    if form in ("markdown", "text"):
        assert not set("\x1b\x00\u202e\ud800") & set(text)
        assert not re.search(r"^# g", text, re.M)
    if form == "markdown":
        assert not re.search(r"(?<!\\)<img|(?<!\\)\[a|(?<!\\)\*\*e", text)
        columns = {
            len(re.findall(r"(?<!\\)\|", line)) for line in text.split("## Run")[1].split("\n") if line[:1] == "|"
        }
        assert columns == {3}
    if form == "html":
        assert "<img src=x" not in text
    if form == "csv":
        assert all(not row[0].startswith("=") for row in csv.reader(io.StringIO(text)))
    if form == "json":
        assert json.loads(text)["model"] == HOSTILE


@pytest.mark.parametrize("run", RUNS)
def test_the_page_has_no_script_and_lets_none_run(run: str) -> None:
    """By a policy that allows nothing but styles that stand in it: what became markup in spite of escaping is inert."""
    page = to_html(run_document(RUNS[run]()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "style-src", "base-uri", "form-action"}
    assert "<script" not in page
    assert not re.search(r"\son\w+=", page)


def test_what_may_be_chance_is_not_called_held() -> None:
    """Thirty requests within a bound are no proof that at least 95 % are: not in the headline, nor in the table."""
    level = closed_level(0, 1, 0.0, 12.0)
    few = summarise(Records.from_list(closed_loop(level, spread=0.1)), manifest([level], slo={"ttft_p95": 1.0}))
    assert few.levels[0].attainment.holds
    assert few.levels[0].decision == "undecided"
    text = to_markdown(run_document(few))
    assert "held the SLO" not in text
    assert "is not decided: 100 % within ttft_p95" in text
    assert "not decided" in to_text(run_document(few)).splitlines()[3]
    assert run_document(few).verdict == Verdict("valid, SLO not decided", "care")  # not green
    assert run_document(sweep()).verdict == Verdict("valid", "good")


def test_what_may_be_chance_is_not_called_broken() -> None:
    """Two late answers of thirty are no proof that fewer than 95 % are in time: neither alone nor above what held."""
    slo = {"ttft_p95": 0.35}
    levels = [closed_level(0, 1, 0.0, 80.0, warmup=0.0), closed_level(1, 2, 100.0, 15.0, warmup=0.0)]
    held = closed_loop(levels[0])
    few = [ticking(n, 100.0 + n / 2, level=1, first=1.0 if n in (9, 20) else 0.2) for n in range(30)]
    alone = summarise(Records.from_list(few), manifest([levels[1]], slo=slo))
    assert alone.levels[0].attainment.holds is False
    assert alone.levels[0].decision == "undecided"
    assert "holds at 2 users is not decided: 93.3 % within ttft_p95" in to_markdown(run_document(alone))
    both = to_markdown(run_document(summarise(Records.from_list(held + few), manifest(levels, slo=slo))))
    assert "1 user held the SLO" in both
    assert "; whether 2 users do is not decided: 93.3 % within ttft_p95" in both


def test_next_to_nothing_is_shown_as_nothing() -> None:
    """The lower end of a share that one request leaves open is no row of zeros."""
    assert (format_percent(1e-9), format_percent(0.0), format_percent(1e-6)) == ("0 %", "0 %", "0.000100 %")
    assert "1 sample for ttft_p95" in to_markdown(run_document(one_request()))


def test_the_answer_names_the_highest_level_that_holds() -> None:
    """And what broke above it."""
    assert "8 users held the SLO" in to_markdown(run_document(sweep()))
    assert "16 users did not: ttft_p95 was" in to_markdown(run_document(sweep()))


def test_the_csv_has_a_row_per_level_and_metric() -> None:
    """With the figures of the summary."""
    summary = sweep()
    rows = list(csv.DictReader(io.StringIO(find_format("csv").render(run_document(summary)))))
    assert len(rows) == 3 * 6
    row = next(row for row in rows if row["level"] == "1" and row["metric"] == "itl")
    assert float(row["p95"]) == summary.levels[1].figures["itl"].quantiles["p95"]


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    """So that nobody needs to look them up."""
    with pytest.raises(UsageError, match="html, markdown, json, csv"):
        find_format("pdf")


def test_a_quantile_that_the_data_does_not_bound_is_shown_so() -> None:
    """Of forty requests nobody knows the p99 from above."""
    level = open_level(0, 1.0, 0.0, 40.0, warmup=0.0)
    records = [ticking(n, float(n), first=0.2 + 0.01 * n) for n in range(40)]
    text = to_markdown(run_document(summarise(Records.from_list(records), replace(manifest([level])))))
    assert "or more)" in text
