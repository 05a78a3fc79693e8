"""The engine's own metrics over time, read beside the load: /metrics once a second -> server.parquet.

Beside the page's own samples stand the figures that all engines share (Gauges), each as `harness:<name>`; an engine may
tell some of these on further pages, of which nothing else is kept.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from harness.engines import ENGINES
from harness.engines.base import NOTHING_TOLD, Endpoint, Gauges
from harness.engines.client import Client, NoAnswer
from harness.measure.server import SHARED

SCHEMA = pa.schema(
    [
        ("at", pa.float64()),
        ("metric", pa.string()),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("value", pa.float64()),
    ]
)


_TIMEOUT = 5.0  # seconds for one page
_MOST_LINES = 5_000  # of a page: ten times what an engine writes
_PATIENCE = 3  # times in a row that a further page may fail to come


@dataclass
class Samples:
    """Columns of server.parquet, which grow by whole pages. at: seconds since the run's start. latest: of the last
    page, under the names that all engines share.
    """

    at: list[float] = field(default_factory=list)
    metric: list[str] = field(default_factory=list)
    labels: list[list[tuple[str, str]]] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    latest: Gauges = NOTHING_TOLD
    _whole: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, at: float, text: str, gauges: Gauges = NOTHING_TOLD) -> None:
        """All samples of one page in the Prometheus text format, and what they amount to. Raises ValueError where the
        text is no such page.
        """
        text = needed(text)
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        written = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
        shared = gauges.known()
        with self._whole:
            self.at += [at] * (len(found) + len(shared))
            # The parser gives every counter the suffix that OpenMetrics asks for; TGI's have none.
            self.metric += [each.name if each.name in written else each.name.removesuffix("_total") for each in found]
            self.labels += [sorted(each.labels.items()) for each in found]
            self.value += [each.value for each in found]
            self.metric += [f"{SHARED}{name}" for name in shared]
            self.labels += [[] for _ in shared]
            self.value += list(shared.values())
            self.latest = gauges

    def write(self, path: Path) -> None:
        """What was read until now: after Ctrl-C the reading may still go on."""
        with self._whole:
            columns = [self.at, self.metric, self.labels, self.value]
            table = pa.table([pa.array(each, kind.type) for each, kind in zip(columns, SCHEMA)], schema=SCHEMA)
        with path.open("wb") as file:  # by its path Arrow takes only UTF-8
            pq.write_table(table, file, compression="zstd")


def needed(page: str) -> str:
    """What of a page is kept: all of a short one; of a long one what engines tell, whatever else a gateway counts, and
    at most so many lines. Linear in the page, at a small part of what parsing it costs.
    """
    if page.count("\n") <= _MOST_LINES:
        return page
    prefixes = tuple(f"{before}{name}" for name in _engine_names() for before in ("", "# HELP ", "# TYPE "))
    own = [line for line in page.splitlines() if line.startswith(prefixes)]
    return "\n".join(own[:_MOST_LINES]) + "\n"


@cache
def _engine_names() -> tuple[str, ...]:
    """What names of engines' metrics begin with, such as `tgi_`."""
    found = (re.match(r"[^:_]+[:_]", engine.queue_metric) for engine in ENGINES)
    return tuple(match[0] for match in found if match is not None)


class Scraper:
    """Reads /metrics every `interval` seconds in a thread until it is left; a page that cannot be read is skipped.

    read_gauges: of the engine that answers there, from that page and those of `others`, paths. missed: pages of
    /metrics that were skipped. Use as a context manager around the load.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        clock_monotonic: float,
        read_gauges: Callable[[str, Sequence[str]], Gauges] = lambda page, others: NOTHING_TOLD,
        interval: float = 1.0,
        others: Sequence[str] = (),
    ) -> None:
        self.samples, self.missed = Samples(), 0
        self._endpoint, self._start, self._interval = endpoint, clock_monotonic, interval
        self._read_gauges, self._others, self._silent = read_gauges, others, Counter[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        with Client(self._endpoint, _TIMEOUT) as client:
            while not self._stop.wait(self._interval):
                at = time.monotonic() - self._start
                try:
                    page = client.get("/metrics")
                    if not page.ok:
                        raise ValueError(f"/metrics answers {page.status}")
                    others = [self._other(client, path) for path in self._others]
                    self.samples.add(at, page.text, self._read_gauges(page.text, others))
                except (NoAnswer, ValueError):
                    self.missed += 1

    def _other(self, client: Client, path: str) -> str:
        """A further page; empty without. One that the engine refuses, or that keeps it waiting, is not asked for again
        and again beside a load.
        """
        if self._silent[path] >= _PATIENCE:
            return ""
        try:
            page = client.get(path)
        except NoAnswer:
            self._silent[path] += 1
            return ""
        self._silent[path] = 0 if page.ok else _PATIENCE
        return page.text if page.ok else ""
