"""The seam between the harness and engines: nobody outside knows one by its name, and a fifth is one class and one
line.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import engines
from harness.catalog.accepts import Accepts
from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.commands.bench import bench
from harness.commands.render import render
from harness.commands.status import down, logs, status
from harness.commands.up import up
from harness.drive.bench_options import BenchOptions, plan_of
from harness.engines.base import EngineInfo, Invocation, Place
from harness.engines.client import Client
from harness.engines.plain import PlainEngine
from harness.errors import UsageError
from harness.serve.target import Target

PACKAGE = Path(engines.__file__).resolve().parents[1]
# What plays an engine may name it; nobody else may.
MAY_NAME_ONE = ("engines/", "simulator/", "emulator/")


def outside() -> list[Path]:
    found = [path for path in PACKAGE.rglob("*.py") if "data" not in path.relative_to(PACKAGE).parts[:1]]
    return [path for path in found if not path.relative_to(PACKAGE).as_posix().startswith(MAY_NAME_ONE)]


def test_nobody_outside_imports_an_engines_folder() -> None:
    """Read from the imports: a folder of engines/ is named by engines, by the simulator and by the emulator alone."""
    folders = {path.name for path in (PACKAGE / "engines").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {engine.name for engine in engines.ENGINES} <= folders
    wrong = []
    for path in outside():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            wrong += [
                f"{path.name}: {name}" for name in names for folder in folders if f"engines.{folder}" in f"{name}."
            ]
    assert wrong == []


# ---- a made-up fifth engine: a script that serves OpenAI's routes, one class, one line in the list

SCRIPT = """\
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = sys.argv[1:]
class Fifth(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def say(self, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        pages = {"/fifth": {"release": "5.1", "slots": 7}, "/health": {}, "/v1/models": {"data": [{"id": "toy"}]}}
        self.say(pages[self.path]) if self.path in pages else self.send_error(404)
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self.send_error(404)
        count = asked.get("max_tokens", 1)
        usage = {"prompt_tokens": 9, "completion_tokens": count}
        if not asked.get("stream"):
            return self.say({"choices": [{"text": "a" * count, "message": {"content": "a"}}], "usage": usage})
        frames = [{"choices": [{"delta": {"content": "a"}, "finish_reason": None}]} for _ in range(count)]
        frames += [{"choices": [{"delta": {}, "finish_reason": "length"}]}, {"choices": [], "usage": usage}]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for text in [json.dumps(each) for each in frames] + ["[DONE]"]:
            data = b"data: " + text.encode() + b"\\n\\n"
            self.wfile.write(b"%x\\r\\n" % len(data) + data + b"\\r\\n")
            time.sleep(0.002)
        self.wfile.write(b"0\\r\\n\\r\\n")
    def log_message(self, *_):
        pass
print("fifth engine, five by five", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(words[words.index("--at") + 1])), Fifth).serve_forever()
"""


class FifthEngine(PlainEngine):
    """Serves by `fifth --model REPO --slots N --at PORT`; tells its release and its slots at /fifth."""

    name = "fifth"
    title = "Fifth"
    app = "fifth"
    program = ("fifth",)
    accepts = Accepts(newest="5.1", dtypes=("float16",))

    def image(self, model: Model) -> str:
        return f"example.org/fifth:{model.engine.version}"

    def invocation(
        self,
        model: Model,
        version: Version,
        place: Place,
        *,
        revision: str | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Invocation:
        limits = [word for pair in self.flags(model.limits, version).items() for word in pair]
        return Invocation(
            ("--model", place.model_path or model.repo, *limits, "--at", str(place.port)), dict(model.env)
        )

    def limit_names(self, version: Version) -> Mapping[str, str]:
        return {"max_batch_size": "--slots"}

    def recognise(self, client: Client) -> EngineInfo | None:
        told: Any = client.page("/fifth").document
        if not isinstance(told, dict) or "slots" not in told:
            return None
        limits = Limits(max_batch_size=told["slots"])
        return EngineInfo(self.name, told["release"], "toy", False, limits, told, ("toy",))


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    """The engine in the list, its program on disk, and a catalogue that serves `toy` by it."""
    monkeypatch.setattr(engines, "ENGINES", engines.ENGINES)
    engines.ENGINES.append(FifthEngine())
    program = tmp_path / "fifth"
    program.write_text(f"#!{sys.executable}\n{SCRIPT}")
    program.chmod(0o755)
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(
        "models: {toy: {repo: some/toy, engine: {name: fifth}, limits: {max_batch_size: 7}, start_timeout: 30s}}\n"
    )
    try:
        yield Target("toy", runtime="local", launcher=str(program), catalogue=str(catalogue))
    finally:
        down()
        engines.ENGINES.pop()


@pytest.mark.usefixtures("no_process_left")
def test_a_fifth_engine_is_started_recognised_benched_and_stopped(fifth: Target, tmp_path: Path) -> None:
    """With nothing but its class and its place in the list."""
    (running,) = up([fifth])
    assert (running.engine, running.engine_version, running.limits.max_batch_size) == ("fifth", "5.1", 7)
    (seen,) = status(["toy"])
    assert (seen.phase, seen.engine) == ("ready", "fifth")
    options = plan_of(BenchOptions(users="2", requests=6, output_tokens="5", output=tmp_path / "run", report=False))
    result = bench(fifth, options, lambda text: None)
    assert (result.summary.total.requests.completed, result.summary.manifest.api) == (6, "openai-chat")
    assert result.summary.manifest.engine == "fifth 5.1"
    assert "--slots 7" in result.summary.manifest.flags["args"]
    assert "fifth engine, five by five" in list(logs(["toy"]))
    assert down(["toy"]) == ["toy"]


@pytest.mark.parametrize("target", ["compose", "swarm", "kubernetes"])
def test_a_fifth_engine_is_rendered(fifth: Target, target: str) -> None:
    """Its image, its arguments, its port."""
    text = render([Target("toy", catalogue=fifth.catalogue)], format=target)
    for word in ("example.org/fifth:5.1", "--slots", "some/toy", "fifth"):
        assert word in text
    assert list(yaml.safe_load_all(text))


def test_a_limit_that_it_lacks_names_what_it_has(fifth: Target) -> None:
    """Nothing is dropped in silence."""
    with pytest.raises(UsageError, match=r"Fifth has no max_total_tokens.*max_batch_size"):
        FifthEngine().flags(Limits(max_total_tokens=9), (5, 1, 0))


def test_an_unknown_engine_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """Exit code 2, the line of the file, and the names."""
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text("models:\n  toy:\n    repo: some/toy\n    engine: {name: vlm}\n")
    with pytest.raises(UsageError, match=r"models\.yaml:4: .*engine/name.*tgi.*did you mean vllm") as refused:
        engines.load_catalogue(catalogue)
    assert refused.value.exit_code == 2
