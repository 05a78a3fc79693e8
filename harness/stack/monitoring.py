"""Prometheus, which reads every engine's /metrics, and Grafana with a dashboard; both set up by files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.stack.document import compose_file, to_yaml
from harness.stack.plan import CONTAINER_PORT
from harness.stack.sidecar import ConfigFile, Sidecar, body_of

FILE = "monitoring.yaml"
PROMETHEUS_PORT, GRAFANA_PORT = 9090, 3000
SCRAPE_INTERVAL = "5s"
JOB = "tgi"  # of the scrape; rules and dashboard go by it
DATA_SOURCE = "harness-prometheus"


@dataclass(frozen=True)
class ScrapeTarget:
    """One running service. model: its entry. host: its name on the stack's network."""

    model: str
    host: str
    port: int = CONTAINER_PORT


def prometheus(
    services: Sequence[ScrapeTarget], *, host_port: int = PROMETHEUS_PORT, image: str | None = None
) -> Sidecar:
    """Prometheus that reads these services. image: another one than the file's."""
    files = (
        ConfigFile("prometheus.yaml", "/etc/prometheus/prometheus.yml", scrape_text(services)),
        ConfigFile("alerts.yaml", "/etc/prometheus/alerts.yml", compose_file("alerts.yaml")),
    )
    body = body_of("prometheus", FILE, image)
    return Sidecar("prometheus", "prometheus", body, 9090, host_port, files)


def grafana(*, host_port: int = GRAFANA_PORT, prometheus_url: str = "http://prometheus:9090") -> Sidecar:
    """Grafana with its data source and the dashboard. prometheus_url: as seen from its container."""
    provisioning = "/etc/grafana/provisioning"
    files = (
        ConfigFile("grafana-source.yaml", f"{provisioning}/datasources/harness.yaml", source_text(prometheus_url)),
        ConfigFile("grafana-folder.yaml", f"{provisioning}/dashboards/harness.yaml", _folder_text()),
        ConfigFile("dashboard.json", f"{DASHBOARDS}/tgi.json", compose_file("dashboard.json")),
    )
    return Sidecar("grafana", "grafana", body_of("grafana", FILE), 3000, host_port, files)


DASHBOARDS = "/etc/harness/dashboards"


def scrape_text(services: Sequence[ScrapeTarget]) -> str:
    """prometheus.yml: every service by its name, with its entry as label `model`."""
    ordered = sorted(set(services), key=lambda each: (each.model, each.host))
    targets = [{"targets": [f"{each.host}:{each.port}"], "labels": {"model": each.model}} for each in ordered]
    document = {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": "15s"},
        "rule_files": ["/etc/prometheus/alerts.yml"],
        "scrape_configs": [
            # A page is made while the engine serves; one that takes longer than this says that the host is starved.
            {"job_name": JOB, "scrape_timeout": "4s", "metrics_path": "/metrics", "static_configs": targets}
        ],
    }
    return to_yaml(document)


def source_text(prometheus_url: str) -> str:
    """Grafana's data source."""
    source = {
        "name": "Prometheus",
        "uid": DATA_SOURCE,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        "editable": False,
        "jsonData": {"timeInterval": SCRAPE_INTERVAL},
    }
    return to_yaml({"apiVersion": 1, "datasources": [source]})


def _folder_text() -> str:
    provider = {
        "name": "harness",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "options": {"path": DASHBOARDS},
    }
    return to_yaml({"apiVersion": 1, "providers": [provider]})
