"""`harness capacity` from the command line: a server of known capacity, and a search that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.commands.slots_server import slots_server
from tests.emulator.conftest import Emulator
from tests.waiting import until

PLACES, SECONDS = 8, 0.8  # with one chat more, each waits a tenth of a second for its place


def command(url: str, folder: Path, *more: str) -> list[str]:
    plain = ["--unit", "chats", "--level", "3s", "--output-tokens", "6", "--input-tokens", "20"]
    return [sys.executable, "-m", "harness", "capacity", "--url", url, *plain, "--output", str(folder), *more]


def document(folder: Path) -> dict[str, Any]:
    path = folder / "capacity.json"
    return json.loads(path.read_text()) if path.exists() else {}


def test_the_interval_holds_what_a_server_over_http_can_do(tmp_path: Path) -> None:
    """It has so many places and no more; whoever waits for one has a first token that is late."""
    with slots_server(PLACES, SECONDS) as url:
        asked = command(url, tmp_path / "search", "--slo", "ttft_p95=60ms", "--budget", "30s", "--json")
        done = subprocess.run(asked, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answer"]["holds"] <= PLACES < told["answer"]["breaks"]
    assert told["limited_by"] == "ttft_p95"
    measured = [cell for cell in told["cells"] if cell["measured"]]
    assert {cell["load"] for cell in measured} <= {each["load"] for each in told["levels"]}
    assert all(cell["figures"]["ttft_p95"] is not None for cell in measured)


def test_a_killed_search_keeps_what_it_measured_and_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the middle of a level of the second history: the first one's answer and cells stand in the file, and
    no level that ended is measured again.
    """
    folder = tmp_path / "search"
    emulator = Emulator("--max-concurrent-requests", "6")
    try:
        histories = ["--history", "20,60", "--budget", "24s", "--level", "2s", "--slo", "ttft_p95=1s", "--start", "3"]
        asked = [word for word in command(emulator.url, folder, *histories) if word not in ("--input-tokens", "20")]
        first = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: len(document(folder).get("surface", [{}, {}])[1].get("levels", [])) >= 1, seconds=120)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        cut = document(folder)
        assert cut["answer"]["holds"] > 0
        assert {cell["history_tokens"] for cell in cut["cells"]} >= {20, 60}
        done = subprocess.run([*asked, "--resume", "--json"], capture_output=True, text=True, timeout=200)
    finally:
        emulator.stop()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for before, after in zip(cut["surface"], told["surface"], strict=True):
        assert after["levels"][: len(before["levels"])] == before["levels"]
    assert told["surface"][0]["levels"] == cut["surface"][0]["levels"]
    runs = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert runs == ["history-20-00", "history-60-00", "history-60-01"]
