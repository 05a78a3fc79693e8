"""Files that harness itself keeps, damaged: baselines, searches, probes, state, traces. One line and exit code 2."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.drive import aa, calibration
from harness.drive.baseline_store import store_at
from harness.drive.baselines import save
from harness.drive.reports import finish
from harness.errors import HarnessError, UsageError
from harness.measure.run import keep_records, read_runs
from harness.probe.journal import NAME as STARTS
from harness.probe.journal import StartJournal
from harness.stack.state import ServiceRecord, path_of, remember, state_folder
from harness.stats.effect import Spread
from harness.workload.traces.read import TraceFile, read_trace
from harness.workload.traces.window import Window
from tests.commands.test_compare import BASE, repeats
from tests.commands.test_report import run_folder
from tests.mutations import HOSTILE, damaged_bytes, damaged_document, damaged_json, damaged_yaml
from tests.probe.test_journal import OUTCOMES
from tests.report.test_kinds import write_probe, write_search
from tests.workload.traces.samples import AZURE, BURSTGPT, MOONCAKE

SEED = int(os.environ.get("HARNESS_FUZZ_SEED", "1"))
MANY = int(os.environ.get("HARNESS_FUZZ", "1"))


@pytest.fixture(autouse=True)
def faults_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be exit code 70 for a user fails a test with its traceback."""

    def raised(error: Exception) -> HarnessError:
        raise error

    monkeypatch.setattr("harness.cli.outcome._fault", raised)


def ends_well(command: list[str], case: object, capsys: Any, codes: tuple[int, ...] = (0, 1, 2)) -> int:
    """One of these codes; where it is 2, one line of an ordinary length."""
    try:
        code = cli.run(command)
    except Exception as error:
        raise AssertionError((command, case)) from error
    said = capsys.readouterr().err.strip()
    assert code in codes, (command, case, said)
    refusal = [line for line in said.split("\n") if line.startswith("harness:")]
    assert code != 2 or (len(refusal) == 1 and len(refusal[0]) < 1500), (command, case, said)
    return code


def damaged_lines(content: bytes, random_: random.Random) -> bytes:
    """One of the JSON lines changed in a value, or bytes."""
    lines = content.splitlines(keepends=True)
    if random_.random() < 0.3 or not lines:
        return damaged_bytes(content, random_)
    at = random_.randrange(len(lines))
    lines[at] = damaged_json(lines[at], random_) + b"\n"
    return b"".join(lines)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the baseline `chat`, and the runs that it is of beside it."""
    folder = tmp_path_factory.mktemp("kept")
    for each in sorted(repeats(folder / "runs", BASE).iterdir()):
        (run,) = read_runs([each])
        finish(run, with_reports=False)
    save("chat", [folder / "runs"], store_at(str(folder / "store")))
    return folder


@pytest.mark.parametrize("name", ["baseline.json", "repeat-01/manifest.json", "repeat-01/summary.json"])
def test_a_damaged_baseline_is_refused_or_used(name: str, kept: Path, tmp_path: Path, capsys: Any) -> None:
    """By every command that reads one."""
    random_ = random.Random(f"{SEED} {name}")
    for number in range(5 * MANY):
        store = tmp_path / f"store-{number}"
        shutil.copytree(kept / "store", store)
        path = store / "chat" / name
        changed = damaged_json(path.read_bytes(), random_)
        path.write_bytes(changed)
        at, runs = ["--store", str(store)], str(kept / "runs")
        out = ["--format", "json,markdown,csv", "--output", str(tmp_path / "out")]
        commands = [
            ["baseline", "show", "chat", *at],
            ["baseline", "list", *at],
            ["history", "--runs", runs, *at, *out],
        ]
        if number % 5 == 0:
            commands += [["baseline", "check", "chat", runs, *at], ["history", "chat", "--runs", runs, *at, *out]]
            commands += [["baseline", "promote", "chat", runs, "--reason", "x", *at]]
        for command in commands:
            ends_well(command, changed, capsys)
        shutil.rmtree(store)


@pytest.mark.parametrize(("name", "make"), [("capacity.json", write_search), ("probe.json", write_probe)])
def test_a_damaged_search_or_probe_is_reported_or_refused(
    name: str, make: Callable[[Path], Path], tmp_path: Path, capsys: Any
) -> None:
    """In every format."""
    random_ = random.Random(f"{SEED} {name}")
    folder = make(tmp_path / "whole")
    content = (folder / name).read_bytes()
    for number in range(10 * MANY):
        changed = damaged_json(content, random_)
        (folder / name).write_bytes(changed)
        forms = "json,markdown,html,csv,text" if number % 10 == 0 else "json,markdown"
        ends_well(["report", str(folder), "--format", forms, "--output", str(tmp_path / "out")], changed, capsys)


def test_a_damaged_list_of_starts_is_refused_or_read(tmp_path: Path) -> None:
    """What is read is of the types that the search computes with."""
    random_ = random.Random(f"{SEED} starts")
    subject = {"model": "toy", "goal": "balanced"}
    whole = StartJournal(tmp_path, subject)
    for outcome in OUTCOMES:
        whole.add(outcome)
    content = (tmp_path / STARTS).read_bytes()
    for _ in range(300 * MANY):
        (tmp_path / STARTS).write_bytes(damaged_lines(content, random_))
        outcomes = []
        with contextlib.suppress(UsageError):
            outcomes = StartJournal(tmp_path, subject).read()
        for each in outcomes:
            assert isinstance(each.seconds, (int, float))
            assert each.came_up in (True, False)
            for result in each.loads:
                assert isinstance(result.verdict, str)
                assert result.begun + result.load.tokens >= 0


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["logs"], ["down"]])
def test_a_damaged_memory_of_services_hurts_nobody(
    command: list[str], tmp_path: Path, own_state: Path, capsys: Any
) -> None:
    """What cannot be read is passed over, and nothing that we did not start is ended."""
    random_ = random.Random(f"{SEED} {command}")
    remember(
        ServiceRecord("one", "embedded", "http://127.0.0.1:1", "one", pid=2**22 - 3, created=1.0, marker="x",
                      repo="a/b", digest="d", command=("x",), log=str(tmp_path / "log"), limits={"max_input_tokens": 3})
    )  # fmt: skip
    content = path_of("one").read_bytes()
    for _ in range(8 * MANY):
        changed = damaged_json(content, random_)
        path_of("one").parent.mkdir(exist_ok=True)
        path_of("one").write_bytes(changed)
        ends_well(command, changed, capsys, codes=(0, 2, 3, 4))


def test_damaged_calibrations_and_spreads_count_as_none(kept: Path, own_state: Path) -> None:
    """They are measured again, and written anew over the old."""
    random_ = random.Random(f"{SEED} calibration")
    (run, *_) = read_runs([kept / "runs"])
    floor = calibration.Floor(0.001, 0.001, 64)
    for _ in range(30 * MANY):
        calibration.store(floor, 1)
        path = state_folder() / "calibration.json"
        path.write_bytes(damaged_json(path.read_bytes(), random_))
        found = calibration.find(64, 1)
        assert found is None or found.streams >= 64
        calibration.store(floor, 1)
        assert calibration.find(64, 1) == floor
        aa.store(run, {("8 users", "ttft_p50"): Spread(0.1, 4.0)})
        (path,) = (state_folder() / "aa").iterdir()
        path.write_bytes(damaged_json(path.read_bytes(), random_))
        for spread in aa.find(run).values():
            assert spread.deviation >= 0
            assert spread.freedom > 0
        path.unlink()


def test_a_manifest_that_says_odd_options_is_not_run_again(tmp_path: Path, capsys: Any) -> None:
    """`rerun` refuses them as the command line would, or finds nobody at the address."""
    random_ = random.Random(f"{SEED} rerun")
    folder = run_folder(tmp_path / "run")
    finish(keep_records(folder), with_reports=False)
    document = json.loads(folder.manifest.read_text())
    document["target"] = {"url": "http://127.0.0.1:1"}
    document["plan"] = {"users": "2", "duration": "1s", "output_tokens": "uniform:3:9", "seed": 7, "workload": "chat",
                        "slo": "ttft_p95=1s", "processes": 1, "timeout": "3s", "rate": None}  # fmt: skip
    for _ in range(15 * MANY):
        part = random_.choice(("plan", "plan", "target", "locustfile", "dataset"))
        changed = {**document, part: damaged_document(document.get(part) or {"path": "x", "sha256": "y"}, random_)}
        if part in ("plan", "target") and isinstance(changed[part], dict) and random_.random() < 0.3:
            changed[part][random_.choice(("trace", "dataset", "changes", "model", "processes"))] = random_.choice(
                HOSTILE
            )
        many = changed["plan"].get("processes") if isinstance(changed["plan"], dict) else None
        if isinstance(many, int) and many > 2:
            continue  # would be started
        folder.manifest.write_text(json.dumps(changed))
        again = ["rerun", str(folder.path), "--output", str(tmp_path / "again")]
        ends_well(again, changed[part], capsys, codes=(2, 3, 4))


@pytest.mark.parametrize(("name", "content"), [("azure", AZURE), ("burstgpt", BURSTGPT), ("mooncake", MOONCAKE)])
def test_a_damaged_trace_is_read_or_refused(name: str, content: str, tmp_path: Path) -> None:
    """With the place that is wrong."""
    random_ = random.Random(f"{SEED} {name}")
    path = tmp_path / f"{name}.txt"
    for _ in range(60 * MANY):
        data = content.encode()
        if content.startswith("{") and random_.random() < 0.5:
            data = damaged_lines(data, random_)
        elif random_.random() < 0.6:
            cells = content.split("\n")
            at = random_.randrange(1, len(cells) - 1)
            parts = cells[at].split(",")
            parts[random_.randrange(len(parts))] = str(random_.choice(HOSTILE))
            cells[at] = ",".join(parts)
            data = "\n".join(cells).encode("utf-8", "surrogatepass")
        else:
            data = damaged_bytes(data, random_)
        path.write_bytes(data)
        try:
            read_trace(TraceFile.of(path), Window())
        except UsageError:
            continue
        except Exception as error:
            raise AssertionError(data) from error


GATE = """\
limits: {ttft_p95: 15%, itl: 5%}
default: 10%
accepted:
  - {figure: ttft_p50, limit: 25%, reason: known, until: 2999-01-01}
  - figure: itl_p95
    load: 8 users
    limit: 0.3
    reason: "the driver"
    until: 2999-01-01
"""


def test_damaged_lists_of_accepted_regressions_are_refused_in_one_line(kept: Path, tmp_path: Path, capsys: Any) -> None:
    """Or are what they say."""
    random_ = random.Random(f"{SEED} gate")
    path, runs = tmp_path / "gate.yaml", str(kept / "runs")
    for _ in range(12 * MANY):
        text = damaged_yaml(GATE, random_)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        ends_well(["compare", runs, runs, "--gate", str(path)], text, capsys)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe1 2", b"1 " * 23, b"nan " * 24, b"1e999 " * 24, b"-1 " * 24, b"0 " * 24]
)
def test_a_day_that_is_none_is_refused(content: bytes, tmp_path: Path, capsys: Any) -> None:
    """Before anything is started; so is a folder."""
    path = tmp_path / "day"
    path.write_bytes(content)
    base = ["capacity", "--url", "http://127.0.0.1:1", "--slo", "ttft_p95=1s", "--profile"]
    assert ends_well([*base, str(path)], content, capsys) == 2
    assert ends_well([*base, str(tmp_path)], content, capsys) == 2
