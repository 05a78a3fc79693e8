"""The page in a real browser, without a network."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.report.run import run_document
from harness.report.to_html import to_html
from tests.conftest import browser
from tests.report.test_reports import RUNS

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=10000"),
]


@pytest.mark.browser
@pytest.mark.parametrize(("run", "charts"), [("sweep", 9), ("single", 6), ("nothing", 0), ("unlike_levels", 9)])
def test_a_browser_shows_every_chart_without_a_network(tmp_path: Path, run: str, charts: int) -> None:
    """Each chart is a picture with its words, and nothing complains."""
    (tmp_path / "report.html").write_text(to_html(run_document(RUNS[run]())), encoding="utf-8")
    own = [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'report.html'}"]
    command = [str(browser()), *FLAGS, *own]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.findall(r"CONSOLE.*", done.stderr) == []
    assert len(re.findall(r"<figure[^>]*>\s*<figcaption>[^<]+</figcaption>\s*<svg", done.stdout)) == charts
