"""Prometheus and Grafana beside two models on a real Docker Engine.

Prometheus is the real program (the pinned image, or Debian's package where no registry can be reached). Grafana is in
no package, so a stand-in takes its place there: it serves only when all provisioned files and its writable places are
where the real one needs them.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.stack import docker_images, sidecar_image
from harness.stack.document import compose_file
from harness.stack.monitoring import grafana, prometheus
from tests.docker.conftest import Harness, ours
from tests.stack.test_monitoring import ask, expressions

pytestmark = [pytest.mark.docker, pytest.mark.containers, pytest.mark.timeout(900)]
STAND_IN = "harness-grafana-stand-in:1"
DOCKERFILE = """
FROM python:3.11-slim-bookworm
RUN printf '#!/bin/sh\\nexec python3 -c "import sys,urllib.request;urllib.request.urlopen(sys.argv[-1])" "$@"\\n' \\
    >/usr/bin/wget && chmod 755 /usr/bin/wget
COPY grafana.py /grafana.py
USER 472
ENTRYPOINT ["python3", "/grafana.py"]
"""
PROGRAM = """
import http.server, json, os, pathlib, urllib.request

def ready():
    dashboards = pathlib.Path(os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    json.loads(dashboards.read_text())
    source = pathlib.Path("/etc/grafana/provisioning/datasources/harness.yaml").read_text()
    assert str(dashboards.parent) in pathlib.Path("/etc/grafana/provisioning/dashboards/harness.yaml").read_text()
    pathlib.Path("/var/lib/grafana/grafana.db").write_text("x")
    pathlib.Path("/tmp/x").write_text("x")
    url = source.split("url: ")[1].split()[0]
    return urllib.request.urlopen(url + "/api/v1/query?query=up").status == 200

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" and ready() else 404)
        self.end_headers()

http.server.HTTPServer(("", 3000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    wanted = prometheus([])
    sidecar_image.ensure(wanted.image, wanted.engine, print)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (("Dockerfile", DOCKERFILE), ("grafana.py", PROGRAM)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    docker_images.build(buffer.getvalue(), "Dockerfile", STAND_IN, {})
    yield {grafana().image: STAND_IN}
    subprocess.run(["docker", "image", "rm", "-f", STAND_IN], capture_output=True, check=False)


@pytest.fixture
def _catalogue(tmp_path: Path, images: dict[str, str]) -> Iterator[None]:
    (tmp_path / "models.yaml").write_text(
        "models:\n"
        "  one: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, limits: {max_input_tokens: 99, max_total_tokens: 999}}\n"
        "  two: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: T4, limits: {max_input_tokens: 99, max_total_tokens: 999}}\n",
        encoding="utf-8",
    )
    text = compose_file("monitoring.yaml")
    for pinned, stand_in in images.items():
        assert pinned in text
        text = text.replace(pinned, stand_in)
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "monitoring.yaml").write_text(text, encoding="utf-8")
    yield
    listed = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True).stdout
    from harness.stack.state import project_name

    for name in listed.split():
        if name == f"{project_name()}_metrics":
            subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=True)


def queried(prometheus_url: str, expression: str) -> list[Any]:
    """The samples of a query now."""
    address = f"{prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(address) as answer:
        document = json.load(answer)
    assert document["status"] == "success"
    found: list[Any] = document["data"]["result"]
    return found


def load(endpoint: str) -> None:
    """Answers, refusals, and requests that join a running batch."""
    together = [threading.Thread(target=ask, args=(endpoint, "Hello", 200)) for _ in range(3)]
    for thread in together:
        thread.start()
        ask(endpoint, "Hello", 2)
    ask(endpoint, "Hello " * 200, 2)
    for thread in together:
        thread.join()


@pytest.mark.usefixtures("_catalogue")
def test_every_panel_shows_both_models(harness: Harness) -> None:
    """Each query of the dashboard, asked of the real Prometheus after some load, has a value for each model."""
    up = ("up", "one", "two", "--runtime", "compose", "--emulate", "--monitoring", "--json")
    running = {each["name"]: each for each in json.loads(harness(*up).stdout)}
    assert {each["phase"] for each in running.values()} == {"ready"}
    assert set(running) == {"one", "two", "prometheus", "grafana"}
    url = running["prometheus"]["endpoint"]

    empty = expressions()
    deadline = time.monotonic() + 120
    while empty:
        assert time.monotonic() < deadline, f"no data for {empty}"
        for name in ("one", "two"):
            load(running[name]["endpoint"])
        empty = [
            query for query in empty if {each["metric"].get("model") for each in queried(url, query)} != {"one", "two"}
        ]

    with urllib.request.urlopen(f"{url}/api/v1/rules") as answer:
        (group,) = json.load(answer)["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert len(group["rules"]) == 5

    shown = {each["name"]: each["phase"] for each in json.loads(harness("status", "--json").stdout)}
    assert shown["grafana"] == shown["prometheus"] == "ready"
    harness("down")
    assert ours() == []
