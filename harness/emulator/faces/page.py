"""Writes a /metrics page as the Python client of Prometheus does, which vLLM and SGLang use too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = ("content-type", "text/plain; version=1.0.0; charset=utf-8")

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class Page:
    """The samples of one engine. labels: that all of them carry."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        self.registry = CollectorRegistry()
        self._prefix, self._labels = prefix, dict(labels)

    def gauge(self, name: str, text: str, value: Callable[[], float], **more: str) -> None:
        """A value that is asked for at every scrape."""
        labels = {**self._labels, **more}
        family = Gauge(f"{self._prefix}{name}", text, list(labels), registry=self.registry)
        family.labels(**labels).set_function(value)

    def counter(self, name: str, text: str, **more: str) -> Counter:
        """Counts up; `_total` is put behind its name."""
        labels = {**self._labels, **more}
        return Counter(f"{self._prefix}{name}", text, list(labels), registry=self.registry).labels(**labels)

    def histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS) -> Histogram:
        labels = list(self._labels)
        family = Histogram(f"{self._prefix}{name}", text, labels, registry=self.registry, buckets=buckets)
        return family.labels(**self._labels)

    def family(self, name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
        """Counters of one name that differ in one label."""
        names = [*self._labels, label]
        family = Counter(f"{self._prefix}{name}", text, names, registry=self.registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def without(self, label: str) -> Page:
        """The same page for samples that lack this label."""
        page = Page(self._prefix, {key: value for key, value in self._labels.items() if key != label})
        page.registry = self.registry
        return page

    def fact(self, name: str, text: str, **labels: str) -> None:
        """A gauge of 1 whose labels tell something, and nothing else."""
        Gauge(f"{self._prefix}{name}", text, list(labels), registry=self.registry).labels(**labels).set(1)

    def render(self) -> bytes:
        return generate_latest(self.registry)
