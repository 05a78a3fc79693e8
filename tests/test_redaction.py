"""Secrets stand in nothing that is written or printed, and reach the engine to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import yaml

from harness import cli, redaction
from harness.catalog.models import parse_catalogue
from harness.measure.run_folder import RunFolder, read_manifest, write_manifest
from harness.redaction import arguments_without_secrets, is_secret, redact, without_secrets
from harness.stack.plan import StackPlan, plan_stack
from harness.stack.render import RENDERERS, render
from harness.stack.render_compose import secret_services
from harness.stack.render_swarm import swarm_secret_services
from tests.runs import manifest

PLANTED = {
    "WANDB_API_KEY": "9f3a71c0de55aa17",
    "MY_PASSWD": "hunter2-$HOME-{{.Node.Hostname}}-$(id)",
    "DB_CREDENTIALS": "line one\nline 'two' \"three\"",
    "SENTRY": "https://user:pl4nted@sentry.example/1",
    "ODDLY_NAMED": "hf_plantedplanted",
    "ANOTHER": "sk-plantedplanted",
}
PLAIN = {
    "TEMPLATE": "{{ bos_token }}{% for m in messages %}",
    "MOTD": "cost $5 & ${HOME} $(hostname) `id` 100%",
    "EMPTY": "",
    "OCTAL": "0123",
    "MAX_BATCH_TOTAL_TOKENS_X": "4096",
    "MULTI": "a\nb\n",
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    redaction._pattern.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "x", True),
        ("MY_APIKEY", "x", True),
        ("AWS_ACCESS_KEY_ID", "x", True),
        ("PASSWORD_FILE", "x", True),
        ("db_passwd", "x", True),
        ("X", "hf_abcdefgh", True),
        ("X", "Bearer abcdefgh", True),
        ("X", "postgres://me:word@host/db", True),
        ("X", "-----BEGIN RSA PRIVATE KEY-----\nabc", True),
        ("MAX_INPUT_TOKENS", "4096", False),
        ("TOKENIZER_CONFIG_PATH", "/a", False),
        ("MONKEY", "x", False),
        ("X", "http://host:8080/a@b", False),
        ("X", "task-force-of-ten", False),
        ("CUDA_GRAPHS", "1,2,4", False),
    ],
)
def test_what_is_a_secret(name: str, value: str, secret: bool) -> None:
    """By name or by value; limits in tokens are none."""
    assert is_secret(name, value) is secret


def test_the_list_can_be_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """By names and patterns in HARNESS_SECRETS."""
    assert without_secrets({"CORP_LICENCE": "abc", "OTHER": "abc"}) == {"CORP_LICENCE": "abc", "OTHER": "abc"}
    monkeypatch.setenv("HARNESS_SECRETS", "corp_*, X")
    assert without_secrets({"CORP_LICENCE": "abc", "OTHER": "abc"})["CORP_LICENCE"] == "[REDACTED]"


def test_texts_and_command_lines_are_shown_without_them() -> None:
    """Only the secret goes; what stands around it stays readable."""
    assert redact("GET http://me:word@host/x with Bearer abcdefgh and sk-12345678.") == (
        "GET http://me:[REDACTED]@host/x with [REDACTED] and [REDACTED]."
    )
    line = ["run", "--api-key", "abc", "--hf-token=abc", "--max-tokens", "5", "hf_abcdefgh"]
    shown = ("run", "--api-key", "[REDACTED]", "--hf-token=[REDACTED]", "--max-tokens", "5", "[REDACTED]")
    assert arguments_without_secrets(line) == shown
    redaction.remember_secret("correct horse")
    assert redact("it said: correct horse!") == "it said: [REDACTED]!"


def planned(environment: dict[str, str]) -> StackPlan:
    text = yaml.safe_dump({"models": {"one": {"repo": "a/b", "gpu": "L4", "env": environment}}})
    return plan_stack([parse_catalogue(text).models["one"]], project="p")


@pytest.mark.parametrize("target", list(RENDERERS))
def test_a_rendered_stack_has_no_secret_and_says_so(target: str) -> None:
    """[REDACTED], or a reference to the cluster's own Secret."""
    text = render(planned({**PLAIN, **PLANTED}), target)
    for value in PLANTED.values():
        assert value not in text
        assert json.dumps(value)[1:-1] not in text
    assert "pl4nted" not in text
    if target == "kubernetes":
        assert "secretKeyRef" in text
        assert "--from-literal=WANDB_API_KEY=" in text
    else:
        assert text.count("[REDACTED]") == len(PLANTED)


def test_every_value_reaches_the_container_to_the_letter() -> None:
    """Each renderer's reader expands in its own way: `$` in Compose, Go templates in Swarm, `$(X)` in Kubernetes."""
    plan = planned({**PLAIN, **PLANTED})
    compose = yaml.safe_load(render(plan, "compose"))["services"]["one"]["environment"]
    compose |= secret_services(plan)["one"]["environment"]
    assert {name: compose[name].replace("$$", "$") for name in {**PLAIN, **PLANTED}} == {**PLAIN, **PLANTED}
    swarm = yaml.safe_load(render(plan, "swarm"))["services"]["one"]["environment"]
    swarm |= swarm_secret_services(plan)["one"]["environment"]
    for name, value in {**PLAIN, **PLANTED}.items():
        written = swarm[name].replace("$$", "$")
        assert "{{" not in written.replace('{{"{{"}}', "")
        assert written.replace('{{"{{"}}', "{{") == value
    (container,) = [
        document["spec"]["template"]["spec"]["containers"][0]
        for document in yaml.safe_load_all(render(plan, "kubernetes"))
        if document["kind"] == "Deployment"
    ]
    pods = {each["name"]: each.get("value") for each in container["env"]}
    assert {name: re.sub(r"\$\$", "$", pods[name]) for name in PLAIN} == PLAIN
    assert all(pods[name] is None for name in PLANTED)


def test_a_manifest_is_written_without_them(tmp_path: Path) -> None:
    """Command, address and flags."""
    folder = RunFolder(tmp_path)
    write_manifest(
        folder,
        manifest(
            [],
            command=("harness", "bench", "--url", "http://me:word@host", "--api-key", "abc"),
            url="http://me:word@host",
            flags={"MY_TOKEN": "abc", "X": "sk-12345678"},
        ),
    )
    text = folder.manifest.read_text()
    assert not {"word", "abc", "sk-12345678"} & set(re.findall(r"[\w-]+", text))
    assert read_manifest(folder).flags == {"MY_TOKEN": "[REDACTED]", "X": "[REDACTED]"}


def test_nothing_that_a_run_writes_or_prints_holds_a_planted_secret(tmp_path: Path, own_state: Path) -> None:
    """Through render, models, up --dry-run, bench and report; the run's folder is of mode 0700."""
    catalogue = tmp_path / "models.yaml"
    entry = {"repo": "Qwen/Qwen2.5-0.5B-Instruct", "gpu": "L4", "env": PLANTED}
    catalogue.write_text(yaml.safe_dump({"models": {"one": entry}}))
    run = tmp_path / "run"
    said = b""
    for arguments in (
        ["models", "list", "--json"],
        ["models", "check", "one"],
        ["render", "one", "--output", "stack"],
        ["up", "one", "--dry-run", "--runtime", "embedded"],
        ["bench", "one", "--runtime", "embedded", "--users", "1", "--duration", "1s", "--warmup", "0s", "--json",
         "--output", str(run)],
        ["report", str(run), "--format", "html,markdown,json,csv,text"],
    ):  # fmt: skip
        environment = {**os.environ, "HARNESS_API_KEY": "key-of-the-service"}
        command = [sys.executable, "-m", "harness", *arguments]
        if "report" not in arguments:
            command += ["--catalogue", str(catalogue)]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
        assert ended.returncode in (0, 1), ended.stderr
        said += ended.stdout + ended.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != catalogue]
    written += [path for path in own_state.rglob("*") if path.is_file()]
    assert {"manifest.json", "stack.yaml", "report.html"} <= {path.name for path in written}
    contents = {str(path): path.read_bytes() for path in written} | {"terminal": said}
    planted = [*PLANTED.values(), "pl4nted", "key-of-the-service", "hunter2", "line 'two'"]
    for name, content in contents.items():
        for value in planted:
            assert value.encode() not in content, (name, value)
            assert json.dumps(value)[1:-1].encode() not in content, (name, value)
    assert run.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "url",
    [
        "http://me:pl4nted-word@127.0.0.1:1",
        "http://pl4nted-word@127.0.0.1:1/v1",
        "http://127.0.0.1:1/v1?api_key=pl4nted-word",
        "http://127.0.0.1:1#pl4nted-word",
        "me:pl4nted-word@127.0.0.1:1",
        "ftp://me:pl4nted-word@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("command", ["bench", "capacity", "probe", "rerun"])
def test_a_url_with_a_secret_is_refused_before_anything_is_named_after_it(
    url: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is not shown: it would stand in the name of a folder, in manifests and in reports."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(tmp_path / "run")
    write_manifest(run, manifest([], target={"url": "http://127.0.0.1:1"}, plan={}))
    before = sorted(tmp_path.rglob("*"))
    more = {"capacity": ["--slo", "ttft_p95=1s"], "rerun": [str(run.path)]}
    assert cli.run([command, "--url", url, *more.get(command, [])]) == 2
    said = capsys.readouterr()
    assert "pl4nted" not in said.out + said.err
    assert sorted(tmp_path.rglob("*")) == before


class _Telltale(BaseHTTPRequestHandler):
    """An engine behind a gateway that says keys wherever it can: model name, metrics, finish reason, error, header."""

    protocol_version = "HTTP/1.1"
    answered: ClassVar[int] = 0

    def do_GET(self) -> None:
        pages = {
            "/v1/models": json.dumps({"data": [{"id": "org/hf_pl4ntedone", "owned_by": "vllm"}]}),
            "/metrics": 'vllm:num_requests_running{api_key="pl4ntedtwo",model_name="sk-pl4ntedthree"} 1\n',
            "/version": '{"version": "0.11.0"}',
            "/health": "",
        }
        self.send(200 if self.path in pages else 404, pages.get(self.path, "{}"))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        _Telltale.answered += 1
        if self.answered % 2:
            message = f"the key {self.headers.get('authorization')} is none; see http://u:pl4ntedfour@db/"
            self.send(400, json.dumps({"error": {"message": message}}))
            return
        deltas = [{"choices": [{"index": 0, "delta": {"content": f" w{n}"}}]} for n in range(8)]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "hf_pl4ntedfive"}]}
        self.send(200, "".join(f"data: {json.dumps(each)}\n\n" for each in (*deltas, end)) + "data: [DONE]\n\n")

    def send(self, status: int, text: str) -> None:
        self.send_response(status)
        for name, value in (("content-length", str(len(text))), ("x-debug", "sk-pl4ntedsix")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_what_a_server_says_of_keys_is_written_nowhere(tmp_path: Path, own_state: Path) -> None:
    """Not in tables of records and metrics either; and the run can be made again though its model is called so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Telltale)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    run, url = tmp_path / "run", f"http://127.0.0.1:{server.server_port}"
    said = b""
    try:
        for arguments in (
            ["bench", "--url", url, "--users", "1", "--requests", "6", "--warmup", "0s", "--output-tokens", "8",
             "--input-tokens", "8", "--output", str(run), "--json"],
            ["report", str(run), "--format", "html,markdown,json,csv,text"],
            ["rerun", str(run), "--output", str(tmp_path / "again"), "--no-report"],
        ):  # fmt: skip
            environment = {**os.environ, "HARNESS_API_KEY": "pl4ntedseven"}
            command = [sys.executable, "-m", "harness", *arguments]
            ended = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=120)
            assert ended.returncode == 0, ended.stderr
            said += ended.stdout + ended.stderr
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    written = [path for folder in (tmp_path, own_state) for path in folder.rglob("*") if path.is_file()]
    texts = {str(path): path.read_text(errors="replace") for path in written} | {"terminal": said.decode()}
    texts |= {f"{path}, read": str(pq.read_table(path).to_pylist()) for path in written if path.suffix == ".parquet"}
    assert any("finish_reason" in text for text in texts.values())
    for name, text in texts.items():
        assert "pl4nted" not in text, (name, text[max(0, text.index("pl4nted") - 80) :][:200])
