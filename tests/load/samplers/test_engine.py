"""The engine's own metrics, from pages of its form over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from harness.catalog.limits import Limits
from harness.engines import engine_named
from harness.engines.base import EngineInfo
from harness.engines.endpoint import Endpoint
from harness.load.samplers.base import SampledService, SampledValue, own
from harness.load.samplers.engine import EngineSampler, needed, page_readings

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

SLOTS = '[{"is_processing": true, "n_prompt_tokens": 7}, {"is_processing": false, "n_prompt_tokens": 9}]'


def test_readings_keep_the_names_of_the_page() -> None:
    """A counter keeps its name without the suffix that OpenMetrics would give it, labels are kept."""
    found = page_readings(PAGE)
    assert found[0] == ("tgi_request_count", 3.0, ())
    assert found[2].labels == (("le", "0.1"), ("method", "prefill"))
    assert len(found) == 6


def test_of_a_long_page_only_what_engines_tell_is_kept() -> None:
    """A gateway with 20,000 series of its own costs a look at each line, and no place in the file."""
    series = (f'gw_seconds_{n}{{model="m-{s}",user="u"}} {s}.5' for n in range(1000) for s in range(20))
    page = "\n".join(["# TYPE vllm:num_requests_waiting gauge", "vllm:num_requests_waiting 2", *series, PAGE])
    kept = needed(page)
    assert set(kept.splitlines()) == {*page.splitlines()[:2], *filter(None, PAGE.splitlines())}
    assert len(page_readings(page)) == 7
    assert needed(PAGE) == PAGE
    endless = "\n".join(f'tgi_x{{n="{n}"}} 1' for n in range(100_000))
    assert needed(endless).count("\n") == 5_000
    wide = "\n".join(f'tgi_x{{n="{"w" * 100_000}"}} {n}' for n in range(100))
    assert needed(wide).count("\n") == 9  # it is kept once a second


@pytest.mark.parametrize("page", ["[" * 9000, "[{", "[1]", "9" * 5000, "\ud800", '[{"is_processing": 1}]'])
def test_a_page_of_slots_made_to_hurt_tells_nothing(page: str) -> None:
    """And does not end the thread that reads all samplers."""
    gauges = engine_named("llamacpp").read_gauges("llamacpp:requests_processing 1\n", [page])
    assert (gauges.running, gauges.kv_tokens) == (1.0, None)


def test_a_label_that_holds_a_key_is_kept_without_it() -> None:
    """By its name, and by its look; others are as they were written."""
    (found,) = page_readings('gw_x{api_key="abcdef",model="hf_abcdefgh",user="u"} 1\n')
    assert found.labels == (("api_key", "[REDACTED]"), ("model", "[REDACTED]"), ("user", "u"))


def test_words_of_others_in_labels_can_be_written() -> None:
    """A process may be called by bytes that are no text, a driver may say what a terminal would act on."""
    (label,) = own("x", 1, why="\udcff\x1b[2J" + "a" * 9000).labels
    assert label[1].startswith("\\udcff\\x1b[2Jaaa")
    assert len(label[1].encode()) == 300


class _Page(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []
    pages: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.asked.append(self.path)
        text = self.pages.get(self.path)
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    """The URL of a server that has the pages of _Page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    _Page.asked.clear()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sampler(url: str, engine: str) -> EngineSampler:
    return EngineSampler(SampledService(Endpoint(url), EngineInfo(engine, None, None, True, Limits())))


def told(readings: Sequence[SampledValue]) -> dict[str, float]:
    """The figures that engines share."""
    return {each.metric: each.value for each in readings if each.metric.startswith("harness:")}


def test_the_page_and_what_it_amounts_to_are_read(served: str) -> None:
    """Beside the page's own samples stand those that all engines share, and the last of them are at hand."""
    _Page.pages = {"/metrics": PAGE}
    reading = sampler(served, "tgi")
    found = reading.read()
    assert len(found) == 7
    assert told(found) == {"harness:waiting": 0.0}
    assert (reading.latest.waiting, reading.missed) == (0.0, 0)
    reading.close()


def test_of_an_unknown_engine_the_page_alone_is_kept(served: str) -> None:
    """Its figures mean nothing to us."""
    _Page.pages = {"/metrics": PAGE}
    assert told(sampler(served, "other").read()) == {}


@pytest.mark.parametrize("page", [None, "no page of metrics {"])
def test_a_page_that_cannot_be_read_is_skipped(served: str, page: str | None) -> None:
    """One that is refused, or is no such page, gives nothing and is counted; the next one is asked for all the same."""
    _Page.pages = {} if page is None else {"/metrics": page}
    reading = sampler(served, "tgi")
    assert (list(reading.read()), list(reading.read()), reading.missed) == ([], [], 2)


def test_further_pages_are_read_beside_the_metrics(served: str) -> None:
    """What an engine tells elsewhere reaches its figures; a page that it refuses is not asked for again."""
    _Page.pages = {"/metrics": "llamacpp:requests_processing 1\n", "/slots": SLOTS}
    reading = sampler(served, "llamacpp")
    assert told(reading.read())["harness:kv_tokens"] == 7.0
    _Page.pages = {"/metrics": "llamacpp:requests_processing 1\n"}
    assert [told(reading.read()) for _ in range(3)] == [{"harness:running": 1.0}] * 3
    assert (_Page.asked.count("/slots"), _Page.asked.count("/metrics")) == (2, 4)
