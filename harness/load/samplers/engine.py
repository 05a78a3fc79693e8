"""The engine's own metrics: its /metrics page unchanged, and beside it the figures that all engines share.

An engine may tell some of these (Gauges, each as `harness:<name>`) on further pages, of which nothing else is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

from prometheus_client.parser import text_string_to_metric_families

from harness.engines import ENGINES
from harness.engines.base import Engine
from harness.engines.client import Client, NoAnswer
from harness.engines.gauges import NOTHING_TOLD, Gauges
from harness.load.samplers.base import SampledService, SampledValue, own
from harness.redaction import REDACTED, is_secret, redact

_TIMEOUT = 5.0  # seconds for one page
_MOST_LINES = 5_000  # of a page: ten times what an engine writes
_MOST_LETTERS = 1_000_000  # of a page: it is kept once a second
_PATIENCE = 3  # times in a row that a further page may fail to come


class EngineSampler:
    """A page that cannot be read is skipped; missed: how many. latest: what the last one amounts to. Of an engine that
    is not known the page alone is kept.
    """

    name = "engine"

    def __init__(self, service: SampledService) -> None:
        self.latest: Gauges = NOTHING_TOLD
        self.missed = 0
        self._client = Client(service.endpoint, _TIMEOUT)
        self._engine = _engine_of(service)
        self._silent = Counter[str]()

    def read(self) -> Sequence[SampledValue]:
        try:
            page = self._client.get("/metrics")
            if not page.ok:
                raise ValueError(f"/metrics answers {page.status}")
            gauges = NOTHING_TOLD
            if self._engine is not None:
                gauges = self._engine.read_gauges(page.text, [self._other(path) for path in self._engine.gauge_pages])
            readings = [*page_readings(page.text), *(own(name, value) for name, value in gauges.known().items())]
        except (NoAnswer, ValueError):
            self.missed += 1
            return ()
        self.latest = gauges
        return readings

    def close(self) -> None:
        self._client.close()

    def _other(self, path: str) -> str:
        """A further page; empty without. One that the engine refuses, or that keeps it waiting, is not asked for again
        and again beside a load.
        """
        if self._silent[path] >= _PATIENCE:
            return ""
        try:
            page = self._client.get(path)
        except NoAnswer:
            self._silent[path] += 1
            return ""
        self._silent[path] = 0 if page.ok else _PATIENCE
        return page.text if page.ok else ""


def _engine_of(service: SampledService) -> Engine | None:
    return next((each for each in ENGINES if service.info is not None and each.name == service.info.engine), None)


def page_readings(text: str) -> list[SampledValue]:
    """All samples of one page in the Prometheus text format. Raises ValueError where the text is not such a page."""
    text = needed(text)
    written = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
    return [
        # The parser gives every counter the suffix that OpenMetrics asks for; TGI's have none.
        SampledValue(
            each.name if each.name in written else each.name.removesuffix("_total"),
            each.value,
            tuple(sorted(map(_without_secret, each.labels.items()))),
        )
        for family in text_string_to_metric_families(text)
        for each in family.samples
    ]


@lru_cache(maxsize=50_000)
def _without_secret(label: tuple[str, str]) -> tuple[str, str]:
    """A gateway may count by whose key it was."""
    name, value = label
    return name, REDACTED if is_secret(name, value) else redact(value)


def needed(page: str) -> str:
    """What of a page is kept: all of a short one; of a long one what engines tell, whatever else a gateway counts, and
    at most this many lines. Linear in the page, at a small part of what parsing it costs.
    """
    if page.count("\n") <= _MOST_LINES and len(page) <= _MOST_LETTERS:
        return page
    prefixes = tuple(f"{before}{name}" for name in _engine_names() for before in ("", "# HELP ", "# TYPE "))
    own_lines = [line for line in page.splitlines() if line.startswith(prefixes)]
    kept, letters = [], 0
    for line in own_lines[:_MOST_LINES]:
        letters += len(line)
        if letters <= _MOST_LETTERS:
            kept.append(line)
    return "\n".join(kept) + "\n"


@cache
def _engine_names() -> tuple[str, ...]:
    """What names of engines' metrics begin with, such as `tgi_`."""
    found = (re.match(r"[^:_]+[:_]", engine.queue_metric) for engine in ENGINES)
    return tuple(match[0] for match in found if match is not None)
