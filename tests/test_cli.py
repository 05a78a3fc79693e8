"""What a new user types wrongly: one line that says what was found and what to do, and the right exit code."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from harness import cli


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
        (["bench", "qwen", "--users", "1"], 2, "qwen2.5-0.5b"),
        (["bench", "qwen2.5-0.5b", "--users", "none"], 2, "--users"),
        (["bench", "qwen2.5-0.5b", "--users", "1", "--rate", "1"], 2, "exclude"),
        (["bench", "qwen2.5-0.5b", "--users", "1", "--trace", "x.csv"], 2, "exclude"),
        (["bench", "qwen2.5-0.5b", "--trace", "nowhere.csv"], 2, "nowhere.csv"),
        (["bench", "qwen2.5-0.5b", "--rate", "1", "--arrival", "weekly"], 2, "poisson"),
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


@pytest.mark.parametrize(
    "command",
    [
        "doctor",
        "up",
        "render",
        "status",
        "logs",
        "down",
        "probe",
        "bench",
        "report",
        "compare",
        "calibrate",
        "demo",
        "emulate",
    ],
)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness COMMAND --help` ends well and shows a line to type."""
    assert run(command, "--help") == 0
    assert "Example: harness " in capsys.readouterr().out
