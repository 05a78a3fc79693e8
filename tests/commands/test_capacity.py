"""A search against the emulator over HTTP, whose limit is known: it answers so many at once and refuses the rest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands.capacity import capacity
from harness.drive.bench_options import BenchOptions, plan_of
from harness.drive.capacity_plan import CapacityOptions, make_plan
from harness.errors import ServiceError, UsageError
from harness.load import runner
from harness.serve.target import Target
from harness.stats.capacity_file import capacity_from
from harness.stats.people import PROFILES
from tests.emulator.conftest import Emulator

LIMIT = 6


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    emulator = Emulator("--max-concurrent-requests", str(LIMIT))
    yield f"http://127.0.0.1:{emulator.port}"
    emulator.stop()


def options(
    folder: Path | None = None,
    *,
    slo: str | None = "ttft_p95=1s",
    input_tokens: str | None = "20",
    **changes: Any,
) -> CapacityOptions:
    asked = plan_of(BenchOptions(slo=slo, input_tokens=input_tokens, output_tokens="6", output=folder, report=False))
    return CapacityOptions(asked, **{"unit": "chats", "budget": "16s", "level": "2s", "start": 2.0, **changes})


def test_a_limit_that_is_known_is_found_and_a_search_goes_on(url: str, tmp_path: Path) -> None:
    """The interval holds it; with --resume no level that ended is measured again, and the file keeps its levels."""
    said: list[str] = []
    first = capacity(Target(url=url), options(tmp_path / "search", budget="5s"), said.append).as_json()
    cut = len(first["levels"])
    assert 1 <= cut <= 6
    found = capacity(Target(url=url), options(tmp_path / "search", resume=True), said.append)
    document = json.loads((tmp_path / "search/capacity.json").read_text())
    assert document["levels"][:cut] == first["levels"]
    assert document["levels"] == found.as_json()["levels"]
    assert sorted(path.name for path in (tmp_path / "search").iterdir()) == ["capacity.json", "levels-00", "levels-01"]
    runs = [json.loads((tmp_path / f"search/levels-0{run}/manifest.json").read_text()) for run in (0, 1)]
    assert sum(len(run["levels"]) for run in runs) == len(document["levels"])
    answer = document["answer"]
    assert answer["holds"] <= LIMIT < answer["breaks"]
    assert {each["decision"] for each in document["levels"]} <= {"holds", "breaks", "undecided"}
    little = document["users"]["little"]
    assert little["by_law"] == pytest.approx(little["answers_at_once"], rel=0.15)
    assert found.unmet is None
    assert f"Between {answer['holds']:.0f} (holds)" in found.as_text()
    assert document["users"]["busy_hour"] is None
    capacity(Target(url=url), options(tmp_path / "search", resume=True, turns=3.0), said.append)
    told = json.loads((tmp_path / "search/capacity.json").read_text())
    assert (told["levels"], told["users"]["turns"]) == (document["levels"], 3.0)
    assert told["users"]["busy_hour"] > 0
    with pytest.raises(UsageError, match="asked something else: unit"):
        capacity(Target(url=url), options(tmp_path / "search", resume=True, unit="rate"), said.append)


def test_people_of_a_rate_are_of_the_rate_that_came(url: str, tmp_path: Path) -> None:
    """In a few seconds chance brings more requests than were asked for, or fewer: no more or fewer people for that."""
    asked = options(tmp_path / "rate", unit="rate", slo="ttft_p95=1us", budget="5s", start=8.0, turns=4.0)
    capacity(Target(url=url), asked, lambda text: None)
    levels = json.loads((tmp_path / "rate/capacity.json").read_text())["levels"]
    assert levels
    loads = [(each["flow"]["load"], each["came"] or each["load"]) for each in levels]
    assert all(of_flow == came for of_flow, came in loads), loads


def test_a_rate_of_conversations_is_called_so(url: str, tmp_path: Path) -> None:
    """Not requests, of which each brings several: in the file, on the way and in the answer, also when it goes on."""
    workload = tmp_path / "talk.py"
    workload.write_text(
        "from harness.load.user import StreamUser\n"
        "class Talk(StreamUser):\n"
        "    workload, turns, input_tokens, output_tokens = 'questions', 3, 20, 2\n"
    )
    asked = plan_of(BenchOptions(slo="ttft_p95=1us", workload=str(workload), output=tmp_path / "talk", report=False))
    said: list[str] = []
    more = CapacityOptions(asked, unit="rate", budget="4s", level="2s", start=4.0)
    for options_now in (more, dataclasses.replace(more, resume=True)):
        found = capacity(Target(url=url), options_now, said.append)
        assert "conversations/s" in found.as_text().splitlines()[2].lower()
        document = json.loads((tmp_path / "talk/capacity.json").read_text())
        assert document["unit"] == capacity_from(document).unit == "conversations"
    assert any("4 conversations/s for" in line for line in said)


def test_a_service_that_goes_away_leaves_no_answer_but_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4, and the levels before stay; what is known by then is not told as what the service holds, and a level
    that ended before it was sure that the service is away is none that the load broke.
    """
    monkeypatch.setattr(runner, "REFUSED_AFTER", 1.5)  # longer than a brief level
    emulator = Emulator("--max-concurrent-requests", str(LIMIT))

    def progress(text: str) -> None:
        if text.startswith("level 3:"):
            emulator.stop()

    target = Target(url=f"http://127.0.0.1:{emulator.port}")
    with pytest.raises(ServiceError, match="the service is away") as told:
        capacity(target, options(tmp_path / "gone"), progress)
    assert "--resume" in str(told.value)
    levels = json.loads((tmp_path / "gone/capacity.json").read_text())["levels"]
    assert [(each["load"], each["attainment"]) for each in levels] == [(2.0, 1.0), (4.0, 1.0)]
    manifest = json.loads((tmp_path / "gone/levels-00/manifest.json").read_text())
    assert len(manifest["levels"]) > 3


def test_a_service_that_is_not_there_leaves_the_folder_for_the_next_try(url: str, tmp_path: Path) -> None:
    """As after a wrong port; what was measured by then is never removed."""
    for wrong in ("http://127.0.0.1:1", f"{url}/nowhere"):
        with pytest.raises(ServiceError):
            capacity(Target(url=wrong), options(tmp_path / "search"), lambda text: None)
        assert not list((tmp_path / "search").iterdir())
    capacity(Target(url=url), options(tmp_path / "search", budget="4s"), lambda text: None)
    before = (tmp_path / "search/capacity.json").read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        capacity(Target(url="http://127.0.0.1:1"), options(tmp_path / "search"), lambda text: None)
    assert (tmp_path / "search/capacity.json").read_bytes() == before


def test_a_service_that_never_holds_ends_with_what_was_asked_for_unmet(url: str, tmp_path: Path) -> None:
    """No first token comes within a microsecond."""
    asked = options(tmp_path / "never", slo="ttft_p95=1us", budget="5s")
    found = capacity(Target(url=url), asked, lambda text: None)
    assert found.unmet is not None
    assert found.as_json()["answer"]["holds"] == 0
    assert "No load was found" in found.as_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slo": None}, "no SLO"),
        ({"slo": "ttft_max=1s"}, "no number of requests shows"),
        ({"slo": "soon"}, "--slo"),
        ({"budget": "3s", "level": "2s"}, "less than two levels"),
        ({"budget": "0"}, "measures nothing"),
        ({"start": 0.5}, "--start"),
        ({"start": float("nan")}, "--start"),
        ({"start": float("inf"), "unit": "rate"}, "--start"),
        ({"most": 0.0}, "--most"),
        ({"most": float("nan")}, "--most"),
        ({"start": 8.0, "most": 4.0}, "lies beyond"),
        ({"history": "2k"}, "Give one of them"),
        ({"history": "", "input_tokens": None}, "--history: expected tokens"),
        ({"history": "2k,,8k", "input_tokens": None}, "--history: expected tokens"),
        ({"history": "2k,8k,2k", "input_tokens": None}, "a history is there twice"),
        ({"turns": 0.0}, "--turns"),
        ({"sessions_per_hour": float("nan")}, "--sessions-per-hour"),
        ({"profile": "weekend"}, "no such profile"),
        ({"resume": True}, "Name it with --output"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(changes: dict[str, Any], words: str) -> None:
    """One line each, with the option."""
    with pytest.raises(UsageError, match=words):
        capacity(Target(url="http://127.0.0.1:1"), options(**changes), lambda text: None)


def test_a_day_may_be_a_file(tmp_path: Path) -> None:
    """24 numbers, whatever parts them; anything else says what was expected."""
    day = tmp_path / "day.txt"
    day.write_text(",".join(str(hour) for hour in range(24)))
    plan = make_plan(Target(url="http://127.0.0.1:1"), options(profile=str(day)))
    assert plan.habits.utilisation == pytest.approx(11.5 / 23)
    day.write_text("1 2 3")
    with pytest.raises(UsageError, match="24 numbers"):
        make_plan(Target(url="http://127.0.0.1:1"), options(profile=str(day)))
    assert all(len(each) == 24 and max(each) == 1 for each in PROFILES.values())
