"""`harness compare`: what it writes, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import junitparser
import pytest

from harness.commands.compare import compare
from harness.drive import gate_file
from harness.drive.gate_file import read_gate
from harness.errors import UsageError
from harness.measure.client import ClientFacts, write_client
from harness.measure.records import Records, write_parquet
from harness.measure.run_folder import RunFolder, write_manifest
from tests.goldens import check_golden, rounded
from tests.runs import closed_level, closed_loop, manifest


@pytest.fixture(autouse=True)
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def folder(path: Path, gap: float = 0.02, seed: int = 0, **changes) -> Path:
    """A finished run of eight users; gap: between tokens."""
    level = closed_level(0, 8, 0.0, 60.0)
    records = closed_loop(replace(level, level=seed), first=10 * gap, gap=gap, spread=0.1)
    made = RunFolder.create(path)
    write_manifest(made, replace(manifest([level], run_id=path.name, start=f"2025-01-31T{seed:02}:00:00Z"), **changes))
    write_parquet(Records.from_list([replace(record, level=0) for record in records]), made.records)
    write_client(made, ClientFacts())
    return path


def repeats(path: Path, seeds: tuple[int, ...], **changes) -> Path:
    """A folder as `bench --repeat` leaves it."""
    for number, seed in enumerate(seeds):
        folder(path / f"repeat-{number:02}", seed=seed, **changes)
    return path


BASE, NEW = (0, 3, 4), (1, 2, 5)


def test_no_change_ends_with_0(tmp_path: Path) -> None:
    """Three repeats of the same thing on each side, as folders of repeats or named one by one."""
    base, new = repeats(tmp_path / "base", BASE), repeats(tmp_path / "new", NEW)
    result = compare([base], [new])
    assert (result.exit_code, result.as_json()["verdict"]) == (0, "same")
    assert "The gate holds" in result.as_text()
    named = compare([base / f"repeat-{number:02}" for number in range(3)], [new])
    assert named.as_json() == result.as_json()


def test_one_run_a_side_ends_with_1_and_says_what_it_needs(tmp_path: Path) -> None:
    """Not even a run that is no different passes."""
    result = compare([folder(tmp_path / "base")], [folder(tmp_path / "new", seed=1)])
    assert result.exit_code == 1
    assert "cannot tell for ttft_p50 at 8 users" in result.as_text()
    assert "needs about 4 more repeats of each side" in result.as_text()


def test_a_regression_ends_with_1_and_is_written_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """JUnit, Markdown, step summary and annotations name what became slower."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    repeats(Path("base"), BASE), repeats(Path("new"), NEW, gap=0.04)
    result = compare(["base"], ["new"], junit=Path("out/junit.xml"), markdown=Path("out/compare.md"))
    assert (result.exit_code, result.as_json()["verdict"]) == (1, "slower")
    check_golden("compare.md", Path("out/compare.md").read_text())
    check_golden("compare.xml", Path("out/junit.xml").read_text())
    check_golden("compare.json", rounded(result.as_json()))
    assert Path("step.md").read_text() == Path("out/compare.md").read_text()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "::error title=itl_p50 at 8 users::itl_p50 at 8 users is slower" in captured.err


def test_a_reader_of_junit_finds_every_figure(tmp_path: Path) -> None:
    """By junitparser: as many tests, failures and skipped ones as there are cases of each, and why each failed."""
    base, new = repeats(tmp_path / "base", BASE), repeats(tmp_path / "new", NEW, gap=0.04)
    found = compare([base], [new], junit=tmp_path / "junit.xml").comparison
    read = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (suite,) = list(read)
    cases = list(suite)
    failed = {case.name: case.result[0].message for case in cases if case.is_failure}
    assert (read.tests, read.failures) == (suite.tests, suite.failures) == (len(cases), len(failed))
    assert suite.skipped == sum(case.is_skipped for case in cases)
    assert set(failed) == {change.figure for change in found.gated if found.breaks(change)} != set()
    assert {case.name for case in cases} == {"the runs can be compared", *(change.figure for change in found.changes)}
    assert "is slower: 20.1 ms -> 40.2 ms" in failed["itl_p50"]


@pytest.mark.parametrize("changes", [{"end": None}, {"workload": {"name": "code"}}, {"api": "openai-chat"}])
def test_what_cannot_be_compared_ends_with_1(tmp_path: Path, changes: dict) -> None:
    """With the reason in every output."""
    base, new = folder(tmp_path / "base"), folder(tmp_path / "new", seed=1, **changes)
    result = compare([base], [new], junit=tmp_path / "junit.xml", markdown=tmp_path / "compare.md")
    assert result.exit_code == 1
    problem = result.as_json()["problems"][0]
    assert "Not comparable" in result.as_text()
    assert problem in (tmp_path / "compare.md").read_text()
    failure = ElementTree.parse(tmp_path / "junit.xml").getroot().find(".//failure")
    assert failure is not None
    assert problem in str(failure.get("message"))


def test_a_missing_folder_is_a_wrong_usage(tmp_path: Path) -> None:
    """Exit 2, not a failed gate."""
    with pytest.raises(UsageError) as raised:
        compare([folder(tmp_path / "base")], [tmp_path / "missing"])
    assert raised.value.exit_code == 2


ENTRY = "figure: itl_p50, limit: 150%, reason: a new kernel, until: 2027-01-31"


@pytest.mark.parametrize(("day", "code"), [("2027-01-31", 0), ("2027-02-01", 1)])
def test_a_regression_is_accepted_until_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], day: str, code: int
) -> None:
    """Then it fails again and says why; every output names the reason before and after."""
    monkeypatch.setattr(gate_file, "today", lambda: date.fromisoformat(day))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    others = "default: 150%, limits: {itl_p50: 10%}"
    (tmp_path / "gate.yaml").write_text(f"{{{others}, accepted: [{{{ENTRY}}}]}}")
    base, new = repeats(tmp_path / "base", BASE), repeats(tmp_path / "new", NEW, gap=0.04)
    junit, page = tmp_path / "junit.xml", tmp_path / "compare.md"
    result = compare([base], [new], gate=tmp_path / "gate.yaml", junit=junit, markdown=page)
    assert result.exit_code == code
    for text in (result.as_text(), junit.read_text(), page.read_text(), capfd.readouterr().err):
        assert "a new kernel" in text
    found = result.as_json()["metrics"]["itl_p50"]
    assert found["accepted" if code == 0 else "expired"] == {
        "limit": 1.5, "until": "2027-01-31", "reason": "a new kernel"
    }  # fmt: skip
    assert ("no longer accepted, it expired" in result.as_text()) == (code == 1)
    assert ("over: a new kernel" in junit.read_text()) == (code == 1)


def test_an_acceptance_that_does_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can be taken out: the figure is well within the gate's own limit, or is not gated at this load."""
    monkeypatch.setattr(gate_file, "today", lambda: date(2027, 1, 1))
    gate = tmp_path / "gate.yaml"
    gate.write_text(f"accepted: [{{{ENTRY}}}, {{{ENTRY}, load: 9 users}}]")
    found = compare([repeats(tmp_path / "base", BASE)], [repeats(tmp_path / "new", NEW)], gate=gate).comparison
    assert [each.partition(":")[0] for each in found.notes[-2:]] == [
        "accepted, but no longer needed", "accepted, but nothing here is gated by it",
    ]  # fmt: skip


def test_a_gate_is_read_from_yaml(tmp_path: Path) -> None:
    """Shares as per cent or as numbers."""
    (tmp_path / "gate.yaml").write_text("default: 5%\nlimits: {ttft_p95: 15%, itl: 0.02}\ninconclusive: pass\n")
    gate = read_gate(tmp_path / "gate.yaml")
    assert gate.limit("ttft_p95") == pytest.approx(0.15)
    assert gate.limit("itl_p99") == 0.02
    assert gate.limit("e2e_p50") == 0.05
    assert gate.undecided_passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {tftt_p95: 10%}", "Did you mean 'ttft_p95'"),
        ("limit: {}", "Did you mean 'limits'"),
        ("limits: {itl_p50: 5%, itl_p50: 90%}", "'itl_p50' is there twice"),
        ("default: 1%\nlimits: {}\ndefault: 90%\n", "'default' is there twice"),
        ("limits: {ttft_p95: fast}", "expected a share such as 10% or 0.1, found 'fast'"),
        ("default: -1", "expected a share"),
        ("limits: {ttft_p95: 5}", "expected a share such as 10% or 0.1, found 5"),
        ("inconclusive: maybe", "expected pass or fail"),
        ("accepted: 3", "accepted: expected a list, found 3"),
        ("accepted: [ttft_p50]", "accepted: expected {figure: "),
        (f"accepted: [{{{ENTRY.replace('itl_p50', 'itl_p51')}}}]", "Did you mean 'itl_p"),
        (f"accepted: [{{{ENTRY}, untill: 1}}]", "Did you mean 'until'"),
        (f"accepted: [{{{ENTRY.replace('a new kernel', '')}}}]", "itl_p50 has no reason"),
        (f"accepted: [{{{ENTRY.replace(', until: 2027-01-31', '')}}}]", "itl_p50 has no until"),
        (f"accepted: [{{{ENTRY.replace('2027-01-31', 'soon')}}}]", "expected YYYY-MM-DD, found 'soon'"),
        (f"accepted: [{{{ENTRY.replace('150%', '8%')}}}]", "itl_p50: the gate's own limit is 10"),
        ("- 1", "expected `limits:`"),
        ("limits: [", "not valid YAML"),
    ],
)
def test_a_wrong_gate_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    """A gate that is not understood must not pass anything."""
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"gate\.yaml") as raised:
        read_gate(tmp_path / "gate.yaml")
    assert message in str(raised.value)
