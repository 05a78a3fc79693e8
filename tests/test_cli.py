"""What a new user types wrongly: one line that says what was found and what to do, and the right exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from harness import cli
from harness.cli.app import app


def run(*arguments: str) -> int:
    return cli.run(list(arguments))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "nonsense"),
        (["bench", "qwen2.5-0.5b", "--no-such"], 2, "--no-such"),
        (["bench"], 2, "MODEL"),
        (["bench", "qwen2.5-0.5b", "--url", "http://127.0.0.1:1"], 2, "exclude"),
        (["bench", "--url", "http://127.0.0.1:1", "--runtime", "local"], 2, "--runtime"),
        (["bench", "qwen", "--users", "1"], 2, "qwen2.5-7b"),
        (["bench", "qwen2.5-0.5b", "--users", "none"], 2, "--users"),
        (["bench", "qwen2.5-0.5b", "--users", "1", "--rate", "1"], 2, "exclude"),
        (["bench", "qwen2.5-0.5b", "--users", "1", "--trace", "x.csv"], 2, "exclude"),
        (["bench", "qwen2.5-0.5b", "--trace", "nowhere.csv"], 2, "nowhere.csv"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--input-tokens", "9"], 2, "--input-tokens"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--workload", "code"], 2, "--workload"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--dataset", "a/b"], 2, "exclude"),
        (["bench", "qwen2.5-0.5b", "--dataset", "a/b", "--input-tokens", "9"], 2, "--input-tokens"),
        (["bench", "qwen2.5-0.5b", "--dataset", "a b"], 2, "ORGANISATION/NAME"),
        (["bench", "qwen2.5-0.5b", "--dataset", "./no/such.csv"], 2, "no/such.csv"),
        (["bench", "qwen2.5-0.5b", "--users", "2", "--trace-speed", "20"], 2, "--trace-speed"),
        (["bench", "qwen2.5-0.5b", "--users", "2", "--trace-time-unit", "s"], 2, "--trace-time-unit"),
        (["bench", "qwen2.5-0.5b", "--users", "2", "--dataset-rows", "5"], 2, "--dataset-rows"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--dataset-rows", "5"], 2, "--dataset-rows"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--trace-speed", "0"], 2, "--trace-speed"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--trace-speed", "nan"], 2, "--trace-speed"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--trace-start", "soon"], 2, "--trace-start"),
        (["bench", "qwen2.5-0.5b", "--trace", "x.csv", "--trace-loop"], 2, "--trace-loop"),
        (["bench", "qwen2.5-0.5b", "--trace", "README.md"], 2, "README.md"),
        (["bench", "qwen2.5-0.5b", "--users", "2", "--arrival", "constant"], 2, "--arrival"),
        (["bench", "qwen2.5-0.5b", "--warmup", "90s"], 2, "60s"),
        (["bench", "qwen2.5-0.5b", "--rate", "1", "--arrival", "weekly"], 2, "poisson"),
        (["bench", "qwen2.5-0.5b", "--rate", "1", "--think-time", "1s"], 2, "--think-time"),
        (["bench", "qwen2.5-0.5b", "--duration", "soon"], 2, "--duration"),
        (["bench", "qwen2.5-0.5b", "--duration", "1s", "--warmup", "2s"], 2, "--warmup"),
        (["bench", "qwen2.5-0.5b", "--slo", "fast"], 2, "ttft_p95"),
        (["bench", "qwen2.5-0.5b", "--input-tokens", "many"], 2, "lognormal"),
        (["bench", "--url", "127.0.0.1:8080", "--users", "1"], 2, "http://"),
        (["up", "qwen2.5-0.5b", "--url", "http://127.0.0.1:1"], 2, "--url"),
        (["up", "no-such-model"], 2, "no-such-model"),
        (["up", "qwen2.5-0.5b", "--gpu", "L5"], 2, "L4"),
        (["up", "qwen2.5-0.5b", "--runtime", "local", "--launcher", "/no/such/program"], 3, "/no/such/program"),
        (["report", "nowhere"], 2, "nowhere"),
        (["compare", "nowhere", "elsewhere"], 2, "nowhere"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code of the contract, and a line that names what is wrong."""
    assert run(*arguments) == code
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("harness: ")
    assert said in last
    assert captured.out == ""


def test_json_of_a_failure_is_a_document_with_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read the same from stdout that people read from stderr."""
    assert run("bench", "no-such-model", "--json") == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["error"]["exit_code"] == 2
    assert document["error"]["message"] in captured.err


def test_nobody_at_the_url_is_a_failed_service(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that refuses: exit code 4 and the address."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        assert run("bench", "--url", url, "--users", "1") == 4
    assert url in capsys.readouterr().err


def test_options_come_from_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--config FILE` sets options under their own names; a name that is none is refused with the file's name."""
    file = tmp_path / "run.yaml"
    file.write_text("users: [1, 0]\n")
    assert run("bench", "qwen2.5-0.5b", "--config", str(file)) == 2
    assert "1,0" in capsys.readouterr().err
    file.write_text("user: 4\n")
    assert run("bench", "qwen2.5-0.5b", "--config", str(file)) == 2
    assert "'users'" in capsys.readouterr().err


def commands(group: Any, *before: str) -> list[tuple[tuple[str, ...], str]]:
    """The words that call each command, and its help as it is written."""
    found = []
    for name, command in group.commands.items():
        words = (*before, name)
        found += commands(command, *words) if hasattr(command, "commands") else [(words, command.help)]
    return found


@pytest.mark.parametrize(("command", "written"), commands(typer.main.get_command(app)))
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`harness COMMAND --help` shows lines to type, unbroken; what it does fits its one line of the list."""
    assert run(*command, "--help") == 0
    said = capsys.readouterr().out
    examples = written.partition("\b\n")[2].splitlines()
    assert examples[0].startswith(f"Example: harness {' '.join(command)}")
    assert all(f"\n  {each}\n" in said for each in examples)
    assert len(written.partition("\n")[0]) <= 65


def _listener() -> socket.socket:
    """Takes connections and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_told_to_end_it_says_so(number: signal.Signals, ignored: bool) -> None:
    """130, one line and the JSON document, also as the background job of a shell, which ignores SIGINT."""
    with _listener() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "bench", "--url", url, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
        )
        listener.settimeout(60)
        with listener.accept()[0]:  # it is at work now
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["harness: interrupted"]
    assert json.loads(stdout)["error"]["exit_code"] == 130


def test_nohup_keeps_it_running(tmp_path: Path) -> None:
    """A hang-up that is ignored on purpose ends nothing."""
    with _listener() as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "bench", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        )
        listener.settimeout(60)
        with listener.accept()[0]:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            assert process.poll() is None
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 130


def _into(reader: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments], stdout=reader, stderr=subprocess.PIPE, text=True, timeout=60
    )


def test_a_reader_that_left_changes_no_exit_code() -> None:
    """`harness ... | head`: no traceback, and the verdict is the command's own."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for arguments, code in [(["--help"], 0), (["models", "list"], 0), (["models"], 2), (["bench", "--json"], 2)]:
            done = _into(writer, *arguments)
            assert done.returncode == code
            assert "Traceback" not in done.stderr
    finally:
        os.close(writer)


def test_a_full_disk_is_something_that_the_machine_lacks() -> None:
    """Exit 3 and one line, wherever the space ran out."""
    with open("/dev/full", "w") as full:
        for arguments in (["--help"], ["models", "list", "--json"]):
            done = _into(full.fileno(), *arguments)
            assert (done.returncode, done.stderr.count("\n")) == (3, 1)
            assert "no space left" in done.stderr.lower()
