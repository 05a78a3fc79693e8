"""Prometheus' configuration and rules by its own checker, and a dashboard whose every metric the engine really has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.serve.serving import open_service
from harness.serve.target import Target
from harness.stack.document import compose_file
from harness.stack.monitoring import (
    DASHBOARDS,
    DATA_SOURCE,
    ScrapeTarget,
    grafana,
    prometheus,
    scrape_text,
    source_text,
)

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (`apt-get install prometheus`)"
)
DASHBOARD: dict[str, Any] = json.loads(compose_file("dashboard.json"))


def expressions() -> list[str]:
    """Every query of the dashboard, with Grafana's variables filled in as Grafana would."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "1m").replace("$model", "(one|two)") for query in queries]


def promtool(*arguments: str | Path) -> None:
    checked = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    """With names that need quoting, and the rules that it reads."""
    text = scrape_text([ScrapeTarget("one", "one"), ScrapeTarget("it's: {two}", "two")])
    rules = tmp_path / "alerts.yml"
    rules.write_text(compose_file("alerts.yaml"), encoding="utf-8")
    assert "/etc/prometheus/alerts.yml" in text
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/alerts.yml", str(rules)), encoding="utf-8")
    promtool("check", "config", path)
    promtool("check", "rules", rules)


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Known series, known alerts: tests/stack/alerts_test.yaml."""
    rules = tmp_path / "alerts.yml"
    rules.write_text(compose_file("alerts.yaml"), encoding="utf-8")
    cases = (Path(__file__).parent / "alerts_test.yaml").read_text(encoding="utf-8").replace("ALERTS", str(rules))
    path = tmp_path / "cases.yml"
    path.write_text(cases, encoding="utf-8")
    promtool("test", "rules", path)


@needs_promtool
def test_promtool_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As rules, because promtool reads queries there."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(expressions())]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the emulator's /metrics says after answers, a refusal, and requests that joined a running batch."""
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "models.yaml").write_text(
        "models:\n"
        "  one: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, limits: {max_input_tokens: 99, max_total_tokens: 999}}\n",
        encoding="utf-8",
    )
    target = Target("one", runtime="embedded", catalogue=str(folder / "models.yaml"))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("XDG_STATE_HOME", str(folder))
        served = stack.enter_context(open_service(target))
        url = served.service.endpoint.url
        together = [threading.Thread(target=ask, args=(url, "Hello", 300)) for _ in range(4)]
        for thread in together:
            thread.start()
            ask(url, "Hello", 2)
        for thread in together:
            thread.join()
        ask(url, "Hello " * 200, 2)
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            yield answer.read().decode()


def ask(url: str, prompt: str, tokens: int) -> None:
    body = json.dumps({"inputs": prompt, "parameters": {"max_new_tokens": tokens}}).encode()
    request = urllib.request.Request(f"{url}/generate", body, {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError as refusal:
        refusal.close()


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\btgi_[a-z_]+", text))


def test_every_metric_of_dashboard_and_alerts_is_there(page: str) -> None:
    """A name that the engine does not write would show as an empty panel for ever."""
    there = {line.partition("{")[0].partition(" ")[0] for line in page.splitlines() if line and line[0] != "#"}
    wanted = set().union(*map(names_in, expressions())) | names_in(compose_file("alerts.yaml"))
    assert len(wanted) > 15
    assert wanted - there == set()


def test_every_label_that_is_asked_for_is_there(page: str) -> None:
    """`by (err)` of a metric without that label would add all reasons up."""
    for name, label in (
        ("tgi_request_failure", "err"),
        ("tgi_batch_concat", "reason"),
        ("tgi_batch_inference_count", "method"),
        ("tgi_batch_forward_duration_sum", "method"),
    ):
        assert re.search(rf"^{name}\{{.*{label}=", page, re.MULTILINE)


def test_panels_do_not_overlap() -> None:
    """Each place of the grid belongs to one panel, and each panel has its own number."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_finds_everything_without_a_click() -> None:
    """Data source, folder and dashboard are files, at the places where each is looked for."""
    files = {each.target: each.text for each in grafana().files}
    source = yaml.safe_load(files["/etc/grafana/provisioning/datasources/harness.yaml"])["datasources"][0]
    assert (source["uid"], source["url"], source["isDefault"]) == (DATA_SOURCE, "http://prometheus:9090", True)
    folder = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/harness.yaml"])["providers"][0]
    assert folder["options"]["path"] == DASHBOARDS
    assert json.loads(files[f"{DASHBOARDS}/tgi.json"]) == DASHBOARD
    home = grafana().environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in files
    assert "password" not in "".join(files.values()).lower() + str(grafana().body).lower()


def test_source_is_where_prometheus_is() -> None:
    """The address in Grafana's data source is the sidecar's name and port."""
    sidecar = prometheus([ScrapeTarget("one", "one")])
    assert f"http://{sidecar.name}:{sidecar.port}" in source_text("http://prometheus:9090")


def test_images_are_pinned() -> None:
    """By full release numbers, none of which moves."""
    for sidecar in (prometheus([]), grafana()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", sidecar.engine_version or "")
