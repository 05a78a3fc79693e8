"""The scraper against a page of TGI's form over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq

from harness.engines.base import Endpoint, Gauges
from harness.load.scrape import SCHEMA, Samples, Scraper, needed
from tests.waiting import until

PAGE = """# HELP tgi_request_count Total number of requests
# TYPE tgi_request_count counter
tgi_request_count 3

# TYPE tgi_queue_size gauge
tgi_queue_size 0

# TYPE tgi_batch_inference_duration histogram
tgi_batch_inference_duration_bucket{method="prefill",le="0.1"} 2
tgi_batch_inference_duration_bucket{method="prefill",le="+Inf"} 2
tgi_batch_inference_duration_sum{method="prefill"} 0.02
tgi_batch_inference_duration_count{method="prefill"} 2
"""


def test_samples_keep_the_names_of_the_page(tmp_path: Path) -> None:
    """A counter keeps its name without the suffix that OpenMetrics would give it, labels are kept."""
    samples = Samples()
    samples.add(1.5, PAGE)
    samples.write(tmp_path / "server.parquet")
    rows = pq.read_table(tmp_path / "server.parquet").to_pylist()
    assert rows[0] == {"at": 1.5, "metric": "tgi_request_count", "labels": [], "value": 3.0}
    assert rows[2]["labels"] == [("le", "0.1"), ("method", "prefill")]
    assert len(rows) == 6


def test_no_sample_still_gives_a_table(tmp_path: Path) -> None:
    """A service without /metrics leaves a table with the columns and no rows."""
    Samples().write(tmp_path / "server.parquet")
    table = pq.read_table(tmp_path / "server.parquet")
    assert table.num_rows == 0
    assert table.schema.names == SCHEMA.names


def test_of_a_long_page_only_what_engines_tell_is_kept() -> None:
    """A gateway with 20,000 series of its own costs a look at each line, and no place in the file."""
    series = (f'gw_seconds_{n}{{model="m-{s}",user="u"}} {s}.5' for n in range(1000) for s in range(20))
    page = "\n".join(["# TYPE vllm:num_requests_waiting gauge", "vllm:num_requests_waiting 2", *series, PAGE])
    kept = needed(page)
    assert set(kept.splitlines()) == {*page.splitlines()[:2], *filter(None, PAGE.splitlines())}
    samples = Samples()
    samples.add(1.0, page)
    assert len(samples.value) == 7
    assert needed(PAGE) == PAGE
    endless = "\n".join(f'tgi_x{{n="{n}"}} 1' for n in range(100_000))
    assert needed(endless).count("\n") == 5_000


def _running(page: str, others: Sequence[str]) -> Gauges:
    return Gauges(running=3.0, kv_tokens=float(len(others[0])) if others else None)


class _Page(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        text = {"/metrics": PAGE, "/slots": "[1]"}.get(self.path)
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *arguments: object) -> None:
        pass


def test_scraper_reads_until_it_is_left() -> None:
    """Pages are read while the context is open; one that is not there counts as missed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        with Scraper(Endpoint(base), time.monotonic(), _running, interval=0.01) as good:
            until(lambda: len(good.samples.at) >= 12)
        with Scraper(Endpoint(f"{base}/elsewhere"), time.monotonic(), interval=0.01) as bad:
            until(lambda: bad.missed >= 2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert good.missed == 0
    assert "harness:running" in good.samples.metric
    assert good.samples.latest.running == 3.0
    assert good.samples.at == sorted(good.samples.at)
    assert bad.samples.at == []


def test_further_pages_are_read_beside_the_metrics() -> None:
    """What an engine tells elsewhere reaches its gauges; a page that it refuses is empty, and not asked for again."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told: list[list[str]] = []

    def read(page: str, others: Sequence[str]) -> Gauges:
        told.append(list(others))
        return _running(page, others)

    _Page.asked.clear()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        others = ("/slots", "/none")
        with Scraper(Endpoint(url), time.monotonic(), read, interval=0.01, others=others) as scraper:
            until(lambda: len(told) >= 3)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert told[:3] == [["[1]", ""]] * 3
    assert scraper.samples.latest.kv_tokens == 3.0
    assert scraper.missed == 0
    assert (_Page.asked.count("/none"), _Page.asked.count("/slots") >= 3) == (1, True)
    assert "harness:kv_tokens" in scraper.samples.metric


def test_it_can_be_written_while_pages_still_come(tmp_path: Path) -> None:
    """After Ctrl-C the table holds whole pages, although the reading goes on beside the writing."""
    samples, enough = Samples(), threading.Event()

    def read() -> None:
        while not enough.is_set():
            samples.add(0.5, PAGE)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(50):
            samples.write(tmp_path / "server.parquet")
            assert pq.read_table(tmp_path / "server.parquet").num_rows % 6 == 0
    finally:
        enough.set()
        reader.join()
