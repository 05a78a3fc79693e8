"""The report on the model's error: how rows are read, played, and weighed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.simulator.accuracy import (
    BUDGET,
    FIT,
    PREFILL,
    THROUGHPUT,
    TPOT,
    TTFT,
    USED,
    ScoredRow,
    StatedLoad,
    assess,
    main,
    parse_workload,
    read,
    summarise,
)

WORKLOADS = {
    "closed loop, 10 virtual users, ~20-token prompt, 50 output tokens, sampling on": StatedLoad("closed", 10, 20, 50),
    "closed loop, 16 users, about 1800 input, 512 output tokens": StatedLoad("closed", 16, 1800, 512),
    "closed loop, concurrency 8, input 1024, output 128": StatedLoad("closed", 8, 1024, 128),
    "text-generation-benchmark, batch 4, prompt 10 tokens, decode 8": StatedLoad("static", 4, 10, 8),
    "static batch 64, prompt 512, output 128": StatedLoad("static", 64, 512, 128),
    "static batch 1280, input 2048, output 2048": StatedLoad("static", 1280, 2048, 2048),
    "batch 1, input 2048, 1 output token": StatedLoad("static", 1, 2048, 1),
    "offline, 128 requests at once, input 128, output 2048": StatedLoad("burst", 128, 128, 2048),
    "512 requests sent at once (infinite rate), mean input 82 tokens, mean output 58": StatedLoad("burst", 512, 82, 58),
    "200 requests, 8k prompt tokens in total, all sent at once, total time": StatedLoad("burst", 200, 40, 0),
    "10 requests; the full set is 20 requests totalling 200k prompt tokens, total time": StatedLoad(
        "burst", 10, 10_000, 0
    ),
    "trtllm-bench maximum throughput, input 1000, output 1000": StatedLoad("saturated", 0, 1000, 1000),
    "single stream": StatedLoad("static", 1, 128, 128),
    "ShareGPT, 1000 requests at once": None,
    "MLPerf offline": None,
    "100 users": None,
}


@pytest.mark.parametrize(("text", "load"), WORKLOADS.items())
def test_workloads_are_read_from_their_text(text: str, load: StatedLoad | None) -> None:
    """What cannot be played is None."""
    assert parse_workload(text) == load


def row(id: str, metric: str, value: object, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "kind": "latency",
        "use": "score",
        "group": more.pop("group", id),
        "engine": "tgi",
        "version": "3.3.7",
        "model": "meta-llama/Llama-3.1-8B",
        "gpu": "L4-24GB",
        "gpu_count": 1,
        "dtype": "bf16",
        "quant": "none",
        "flags": {},
        "workload": "text-generation-benchmark, batch 1, prompt 128 tokens, decode 8",
        "metric": metric,
        "value": value,
        **more,
    }


ROWS = [
    row("budget", "max_batch_total_tokens", 30_000, kind="memory", flags={"defaults": True}),
    row("used", "gpu_memory_used_after_start", 20_000, kind="memory"),
    row("fits", "fit_outcome", "starts", kind="fit"),
    row("fits not", "fit_outcome", "oom_load", kind="fit", model="meta-llama/Llama-3.1-70B"),
    row("decode", "decode_step", 65.0),
    row("prefill", "prefill_batch", 100.0),
    row("ttft", "ttft_p50", 500.0, workload="closed loop, 4 users, about 200 input, 32 output tokens"),
    row("rate", "output_throughput", 60.0, workload="closed loop, 4 users, about 200 input, 32 output tokens"),
    row("unknown model", "decode_step", 1.0, model="acme/unknown-9b"),
    row("unknown card", "decode_step", 1.0, gpu="not stated"),
    row("another engine's budget", "max_batch_total_tokens", 1, kind="memory", engine="vllm"),
    row("context only", "decode_step", 1.0, use="info"),
]


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.yaml"
    path.write_text(yaml.safe_dump({"meta": {"built": "2026-01-01"}, "open": ROWS[:6], "more": ROWS[6:]}))
    return path


def test_every_row_is_predicted_or_says_why_not(measurements: Path) -> None:
    """All sections but `meta` are read."""
    outcomes = {outcome.reading_id: outcome for outcome in assess(read(measurements))}
    assert len(outcomes) == len(ROWS)
    predicted = {name: outcome.quantity for name, outcome in outcomes.items() if outcome.error is not None}
    assert predicted == {
        "budget": BUDGET,
        "used": USED,
        "fits": FIT,
        "fits not": FIT,
        "decode": TPOT,
        "prefill": PREFILL,
        "ttft": TTFT,
        "rate": THROUGHPUT,
        "context only": TPOT,
    }
    assert "not in the table" in str(outcomes["unknown model"].skipped)
    assert "unknown GPU" in str(outcomes["unknown card"].skipped)
    assert outcomes["another engine's budget"].skipped is not None


def test_errors_are_relative_to_what_they_should_be(measurements: Path) -> None:
    """A budget's to the GPU's memory, a time's to the measured one; a fit is right or wrong."""
    outcomes = {outcome.reading_id: outcome for outcome in assess(read(measurements))}
    tokens = float(str(outcomes["budget"].predicted))
    assert outcomes["budget"].error == pytest.approx(abs(tokens - 30_000) * 131_072 / (22.05 * 2**30), rel=1e-3)
    step = float(str(outcomes["decode"].predicted))
    assert outcomes["decode"].error == pytest.approx(abs(step - 65) / 65)
    assert outcomes["fits"].error == outcomes["fits not"].error == 0


def test_a_big_sweep_weighs_as_much_as_a_single_reading() -> None:
    """Median of each group first; rows for information do not count."""
    sweep = [ScoredRow(f"s{number}", "sweep", "score", TPOT, 1.0, 1.0, 0.5) for number in range(50)]
    single = [
        ScoredRow("a", "a", "score", TPOT, 1.0, 1.0, 0.1),
        ScoredRow("b", "b", "score-loose", TPOT, 1.0, 1.0, 0.2),
    ]
    ignored = [
        ScoredRow("c", "c", "info", TPOT, 1.0, 1.0, 9.0),
        ScoredRow("d", "d", "score", TPOT, 1.0, None, None, "why"),
    ]
    accuracy = summarise([*sweep, *single, *ignored])[0]
    assert (accuracy.groups, accuracy.rows, accuracy.median) == (3, 52, 0.2)
    assert accuracy.p90 == pytest.approx(0.44)


def test_the_table_and_the_document(measurements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people; with --json one document and nothing else."""
    assert main([str(measurements)]) == 0
    table = capsys.readouterr().out
    assert "TPOT" in table
    assert "3 rows are not predicted" in table
    assert main([str(measurements), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {each["quantity"] for each in document["quantities"]} == {BUDGET, USED, FIT, TPOT, PREFILL, TTFT, THROUGHPUT}
    assert len(document["rows"]) == len(ROWS)
    assert main([str(measurements), "--rows"]) == 0
    assert "unknown model: not predicted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "found"), [("open: [", "is not valid YAML"), ("meta: {}", "holds no rows"), (None, "read")]
)
def test_a_bad_file_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, found: str
) -> None:
    """What was found, and where."""
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 2
    assert found in capsys.readouterr().err
