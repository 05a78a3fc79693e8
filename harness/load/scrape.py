"""The engine's own metrics over time, read beside the load: /metrics once a second -> server.parquet."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from prometheus_client.parser import text_string_to_metric_families

from harness.engines.session import open_session

SCHEMA = pa.schema(
    [
        ("at", pa.float64()),
        ("metric", pa.string()),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("value", pa.float64()),
    ]
)


@dataclass
class Samples:
    """Columns of server.parquet, which grow by whole pages. at: seconds since the run's start."""

    at: list[float] = field(default_factory=list)
    metric: list[str] = field(default_factory=list)
    labels: list[list[tuple[str, str]]] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    _whole: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, at: float, text: str) -> None:
        """All samples of one page in the Prometheus text format. Raises ValueError where it is none."""
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        with self._whole:
            self.at += [at] * len(found)
            # The parser gives every counter the suffix that OpenMetrics asks for; TGI's have none.
            self.metric += [each.name if each.name in text else each.name.removesuffix("_total") for each in found]
            self.labels += [sorted(each.labels.items()) for each in found]
            self.value += [each.value for each in found]

    def write(self, path: Path) -> None:
        """What was read until now: after Ctrl-C the reading may still go on."""
        with self._whole:
            columns = [self.at, self.metric, self.labels, self.value]
            table = pa.table([pa.array(each, kind.type) for each, kind in zip(columns, SCHEMA)], schema=SCHEMA)
        pq.write_table(table, path, compression="zstd")


class Scraper:
    """Reads a page every `interval` seconds in a thread until it is left; a page that cannot be read is skipped.

    missed: how many were. Use as a context manager around the load.
    """

    def __init__(self, url: str, clock_monotonic: float, interval: float = 1.0) -> None:
        self.samples, self.missed = Samples(), 0
        self._url, self._start, self._interval = url, clock_monotonic, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        with open_session(self._url) as session:
            while not self._stop.wait(self._interval):
                at = time.monotonic() - self._start
                try:
                    answer = session.get(self._url, timeout=5)
                    answer.raise_for_status()
                    self.samples.add(at, answer.text)
                except (requests.RequestException, ValueError):
                    self.missed += 1
