"""Compares the model of capacity and latency with published measurements.

    python -m harness.simulator.accuracy FILE [--json] [--rows]

FILE is YAML with a list of rows per section (all sections but `meta` are read): id, kind, use, group, engine, version,
model, gpu, gpu_count, dtype, quant, flags, workload, metric, value, unit. Rows with use `score` and `score-loose`
count.
The median error of each group is taken first, then median and 90th percentile over the groups, so that a big sweep
weighs as much as a single reading. Errors are relative to the measured value; those of memory, relative to the memory
that the GPU shows. Other engines than TGI share the model of the hardware, not of the scheduler and host.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from harness.catalog.gpus import Gpu, find_gpu
from harness.catalog.shapes import ModelShape, find_shape, kv_bytes_per_token, weight_bytes
from harness.errors import HarnessError, UsageError
from harness.measure.record import RequestRecord
from harness.simulator.cost import CostModel, Host, engine_host, kernel_of
from harness.simulator.memory import Budget, ServingPlan, budget, largest_set_budget, resolve
from harness.simulator.scheduler import EngineSettings, StepShape
from harness.simulator.version import MAIN_2023_07_19
from harness.simulator.virtual import PlannedRequest, closed_loop, simulate
from harness.units import GIB, MIB, format_percent

BUDGET, USED, FIT, WEIGHTS = "budget", "memory used after the start", "fits or not", "weights"
TPOT, LATENCY, PREFILL, TTFT = "TPOT", "latency per token", "prefill, unloaded", "TTFT, loaded"
THROUGHPUT, DURATION = "throughput", "duration of a batch"


@dataclass(frozen=True)
class Measurement:
    """One row: what was measured, on what."""

    id: str
    group: str
    use: str
    kind: str
    metric: str
    value: float | str
    workload: str
    engine: str
    plan: ServingPlan

    @property
    def quantity(self) -> str | None:
        """Which error this row contributes to; None for what the model says nothing about."""
        if self.kind == "latency":
            return _latency_quantity(self)
        return _MEMORY_QUANTITIES.get(self.metric)


_MEMORY_QUANTITIES = {
    "max_batch_total_tokens": BUDGET,
    "kv_cache_blocks_rank0": BUDGET,
    "gpu_memory_used_after_start": USED,
    "fit_outcome": FIT,
    "weights": WEIGHTS,
}


@dataclass(frozen=True)
class ScoredRow:
    """A row with its prediction. error: a fraction; None where the row cannot be predicted. skipped: why."""

    reading_id: str
    group: str
    use: str
    quantity: str
    measured: float | str | None
    predicted: float | str | None
    error: float | None
    skipped: str | None = None


def _latency_quantity(reading: Measurement) -> str | None:
    metric, load = reading.metric, parse_workload(reading.workload)
    alone = load is not None and load.together == 1
    if metric.startswith("ttft"):
        return PREFILL if alone else TTFT
    if metric in ("prefill_batch", "first_token_latency"):
        return PREFILL
    if metric.startswith("tpot") or metric == "decode_step":
        return TPOT
    if metric.startswith("latency_per_token"):
        return LATENCY
    if "throughput" in metric:
        return THROUGHPUT
    return DURATION if metric in ("duration", "e2e_latency_batch") else None


@dataclass(frozen=True)
class StatedLoad:
    """What a row's workload text says. shape: `static` batch, `closed` loop, `burst` at once, `saturated`.

    together: batch size, users or requests at once; 0 for as many as fit. input, output: tokens per request.
    """

    shape: str
    together: int
    input: int
    output: int


_NUMBER = r"(\d[\d,]*(?:\.\d+)?k?)"


def parse_workload(text: str) -> StatedLoad | None:
    """The load that a workload text describes; None for what cannot be played (a data set, a benchmark's rules)."""
    text = text.lower()
    if text == "single stream":
        return StatedLoad("static", 1, 128, 128)
    total = re.search(rf"{_NUMBER} requests, {_NUMBER} prompt tokens in total", text)
    if total:
        return StatedLoad("burst", _int(total[1]), max(1, _int(total[2]) // _int(total[1])), 0)
    share = re.search(
        rf"{_NUMBER} requests; the full set is {_NUMBER} requests totalling {_NUMBER} prompt tokens", text
    )
    if share:
        return StatedLoad("burst", _int(share[1]), _int(share[3]) // _int(share[2]), 0)
    prompt = _find(text, rf"(?:prompt|input) {_NUMBER}", rf"{_NUMBER} input", rf"{_NUMBER}-token prompt")
    answer = _find(text, rf"(?:decode|output) {_NUMBER}", rf"{_NUMBER} output")
    if answer is None or ("sharegpt" in text) or ("mlperf" in text):
        return None
    if "maximum throughput" in text:
        return StatedLoad("saturated", 0, prompt or 128, answer)
    together = _find(
        text, rf"batch {_NUMBER}", rf"concurrency {_NUMBER}", rf"{_NUMBER} (?:virtual )?users?", rf"{_NUMBER} requests"
    )
    shape = "closed" if "closed loop" in text else "burst" if "at once" in text else "static"
    return StatedLoad(shape, together or 1, prompt or 128, answer)


def _find(text: str, *patterns: str) -> int | None:
    for pattern in patterns:
        match = re.search(pattern, text)
        if match:
            return _int(match[1])
    return None


def _int(text: str) -> int:
    number = text.replace(",", "")
    return round(float(number.rstrip("k")) * (1000 if number.endswith("k") else 1))


def read(path: Path) -> list[Measurement | ScoredRow]:
    """The file's rows; a row on a model or GPU that is not in the tables becomes a skipped Outcome."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"is not valid YAML: {error}", where=str(path)) from error
    sections = document if isinstance(document, dict) else {}
    rows = [row for name, section in sections.items() if name != "meta" for row in section or ()]
    if not rows:
        raise UsageError("holds no rows", where=str(path), advice="Expected a section such as `open:` with a list.")
    return [_reading(row) for row in rows]


def _reading(row: Mapping[str, Any]) -> Measurement | ScoredRow:
    flags = row.get("flags") or {}
    try:
        shape = find_shape(str(row["model"]))
        if shape is None:
            raise UsageError(f"model {row['model']!r} is not in the table")
        gpu = find_gpu(re.sub(r"\s*\(.*?\)", "", str(row["gpu"])).split(",")[0])
        plan = _plan(row, shape, gpu, flags)
    except HarnessError as error:
        return ScoredRow(row["id"], row["group"], row["use"], row["metric"], row["value"], None, None, str(error))
    return Measurement(
        id=row["id"],
        group=row["group"],
        use=row["use"],
        kind=row["kind"],
        metric=row["metric"],
        value=row["value"],
        workload=str(row.get("workload", "")),
        engine=str(row["engine"]).split(" ")[0],
        plan=plan,
    )


def _plan(row: Mapping[str, Any], shape: ModelShape, gpu: Gpu, flags: Mapping[str, Any]) -> ServingPlan:
    count = row.get("gpu_count") or flags.get("num_shard") or flags.get("tensor_parallel_size") or flags.get("tp") or 1
    quant = _quantization(f"{row.get('quant') or ''} {row.get('dtype') or ''} {row['model']}")
    max_input = _limit(flags.get("max_input_tokens")) or _limit(flags.get("max_input_length"))
    return ServingPlan(
        shape=shape,
        gpu=gpu,
        shards=int(flags.get("num_shard") or count),
        version=str(row.get("version") or ""),
        quantize=quant,
        kv_cache_dtype="fp8_e4m3fn" if _fp8_cache(row, quant) else None,
        cuda_memory_fraction=float(flags.get("cuda_memory_fraction", 1.0)),
        cuda_graphs=tuple(flags["cuda_graphs"]) if flags.get("cuda_graphs") else None,
        max_input_tokens=max_input,
        max_total_tokens=_limit(flags.get("max_total_tokens")),
        max_batch_prefill_tokens=_limit(flags.get("max_batch_prefill_tokens")),
        max_batch_total_tokens=_limit(flags.get("max_batch_total_tokens")),
    )


def _fp8_cache(row: Mapping[str, Any], quantize: str | None) -> bool:
    """TensorRT-LLM's published fp8 figures have an fp8 KV cache too."""
    return "fp8-kv" in str(row["model"]).lower() or (row["engine"] == "tensorrt-llm" and quantize == "fp8")


def _limit(value: Any) -> int | None:
    found = re.search(_NUMBER, str(value)) if value is not None else None
    return _int(found[1]) if found else None


def _quantization(text: str) -> str | None:
    text = text.lower()
    for mark, method in (
        ("awq", "awq"),
        ("gptq", "gptq"),
        ("bitsandbytes", "bitsandbytes-nf4"),
        ("fp4", "mxfp4"),
        ("fp8", "fp8"),
    ):
        if mark in text:
            return method
    return None


def assess(readings: Iterable[Measurement | ScoredRow]) -> list[ScoredRow]:
    """Predict every row."""
    return [reading if isinstance(reading, ScoredRow) else _outcome(reading) for reading in readings]


def _outcome(reading: Measurement) -> ScoredRow:
    def skipped(why: str) -> ScoredRow:
        return ScoredRow(reading.id, reading.group, reading.use, reading.metric, reading.value, None, None, why)

    quantity = reading.quantity
    if quantity is None:
        return skipped("nothing that the model predicts")
    try:
        predicted = _predict_memory(reading) if reading.kind != "latency" else _predict_latency(reading)
    except HarnessError as error:
        return skipped(str(error))
    if predicted is None:
        return skipped("the workload cannot be played")
    return ScoredRow(
        reading.id, reading.group, reading.use, quantity, reading.value, predicted, _error(reading, quantity, predicted)
    )


def _error(reading: Measurement, quantity: str, predicted: float | str) -> float:
    if quantity == FIT:
        return float(str(predicted).split("_")[0] != str(reading.value).split("_")[0])
    measured = float(reading.value)
    difference = abs(float(predicted) - measured)
    plan = reading.plan
    if quantity == BUDGET:
        return difference * kv_bytes_per_token(plan.shape, plan.kv_cache_dtype, plan.shards) / plan.gpu.visible_bytes
    if quantity == USED:
        return difference * MIB / plan.gpu.visible_bytes
    return difference / measured


# Memory.


def _predict_memory(reading: Measurement) -> float | str | None:
    plan = reading.plan
    if reading.metric == "weights":
        return weight_bytes(plan.shape, plan.quantize, plan.dtype, plan.shards) / GIB
    if reading.engine != "tgi":
        return None
    if reading.metric == "max_batch_total_tokens" and plan.release < MAIN_2023_07_19:
        return largest_set_budget(replace(plan, max_batch_total_tokens=None))
    outcome = budget(_completed(plan))
    if reading.metric == "fit_outcome":
        return "starts" if isinstance(outcome, Budget) else f"oom_{outcome.stage}"
    if not isinstance(outcome, Budget):
        return 0.0
    return outcome.used_bytes / MIB if reading.metric == "gpu_memory_used_after_start" else outcome.tokens


def _completed(plan: ServingPlan) -> ServingPlan:
    """A row often names only the limit it is about; the others must then allow it."""
    resolved = resolve(plan)
    wanted, total = plan.max_input_tokens, resolved.max_total_tokens
    if wanted is not None and total is not None and total <= wanted:
        return replace(plan, max_total_tokens=wanted + 1)
    return plan


# Latency.


def _predict_latency(reading: Measurement) -> float | None:
    load = parse_workload(reading.workload)
    if load is None:
        return None
    if reading.metric.startswith("throughput_"):
        load = replace(load, together=_find(reading.metric, r"(\d+)_user") or 1)
    cost = _cost(reading)
    if load.shape == "static" or reading.metric in ("prefill_batch", "decode_step"):
        return _static(reading, cost, load)
    return _played(reading, cost, load)


def _cost(reading: Measurement) -> CostModel:
    plan = reading.plan
    resolved = resolve(plan)
    host = _host(reading, resolved.cuda_graphs)
    return CostModel(
        plan.shape,
        plan.gpu,
        host,
        shards=plan.shards,
        quantize=kernel_of(plan.release, plan.quantize, plan.shards) if reading.engine == "tgi" else plan.quantize,
        kv_cache_dtype=plan.kv_cache_dtype,
    )


def _host(reading: Measurement, graphs: tuple[int, ...]) -> Host:
    """TGI's own host, or that of another engine. Engines other than TGI capture graphs up to large batches."""
    if reading.engine == "tgi":
        return engine_host("tgi", graphs, reading.plan.release, sampling="sampling on" in reading.workload)
    version = (reading.plan.version or "").lower()
    eager = "no cuda graph" in version or "2023" in version
    many = () if eager else (1, 2, 4, *range(8, 513, 8))
    return engine_host("vllm-2023" if reading.engine == "vllm" and "2023" in version else reading.engine, many)


def _static(reading: Measurement, cost: CostModel, load: StatedLoad) -> float | None:
    batch, plan = load.together, reading.plan
    prefill = cost.seconds(StepShape(((load.input, 0),) * batch, 0, 0))
    step = cost.seconds(StepShape((), batch, batch * (load.input + load.output // 2)))
    total = prefill + step * max(0, load.output - 1)
    metric = reading.metric
    if metric == "prefill_batch":
        return prefill * 1000
    if metric.startswith("ttft") or metric == "first_token_latency":
        return (prefill + cost.request_seconds(load.input)) * 1000
    if metric == "decode_step" or metric.startswith("tpot"):
        return step * 1000
    if metric.startswith("latency_per_token"):
        return total / max(1, load.output) * 1000
    if metric in ("duration", "e2e_latency_batch"):
        return total
    rate = batch * load.output / total
    return rate / plan.shards if metric.endswith("per_gpu") else rate


def _settings(reading: Measurement) -> EngineSettings:
    plan = reading.plan
    if reading.engine == "tgi":
        resolved = resolve(plan)
        found = budget(_completed(plan))
        return EngineSettings(
            max_batch_prefill_tokens=resolved.max_batch_prefill_tokens,
            max_batch_total_tokens=found.tokens if isinstance(found, Budget) else 100_000,
            block_size=resolved.block_size,
            chunking=resolved.chunking,
            prefix_cache=resolved.prefix_cache,
            padded=resolved.padded,
            waiting_served_ratio=1.2 if plan.release < (2, 0) else 0.3,
        )
    free = 0.9 * plan.gpu.visible_bytes - weight_bytes(plan.shape, plan.quantize, None, plan.shards) - 2 * GIB
    tokens = int(free / kv_bytes_per_token(plan.shape, plan.kv_cache_dtype, plan.shards))
    return EngineSettings(8192, max(20_000, tokens), block_size=16, prefix_cache=False)


def _played(reading: Measurement, cost: CostModel, load: StatedLoad) -> float | None:
    """Play the load on the scheduler in virtual time."""
    settings = _settings(reading)
    output = load.output or 100
    together = load.together or min(2048, settings.max_batch_total_tokens // (load.input + output))
    if load.shape == "burst":
        records = simulate([PlannedRequest(0.0, load.input, output)] * together, settings, cost)
        return _measure(reading, records, 0.0)
    # All users start at once, as load generators let them; answers vary by a fifth, or users would stay in step.
    rounds = 3 if load.shape == "saturated" else 8
    lengths = [
        (load.input, max(1, round(output * (0.8 + 0.4 * (turn * 0.618 % 1))))) for turn in range(together * rounds)
    ]
    requests, follow_up = closed_loop(together, lengths, together * rounds)
    records = simulate(requests, settings, cost, follow_up=follow_up)
    return _measure(reading, records, 0.0)


def _measure(reading: Measurement, records: list[RequestRecord], start: float) -> float | None:
    done = [record for record in records if record.status == "completed"]
    if not done:
        return None
    metric = reading.metric
    middle: Callable[[Iterable[float]], float] = median if "median" in metric or "p50" in metric else mean
    ends = [record.finished_at or 0.0 for record in done]
    if metric.startswith("ttft"):
        return 1000 * middle([(record.first_byte_at or 0.0) - record.scheduled_at for record in done])
    if metric.startswith("tpot"):
        spans = [(float(each.token_at[-1]) - float(each.token_at[0])) / max(1, len(each.token_at) - 1) for each in done]
        return 1000 * middle(spans)
    if metric.startswith("latency_per_token"):
        spans = [(end - each.scheduled_at) / len(each.token_at) for each, end in zip(done, ends, strict=True)]
        return 1000 * middle(spans)
    if metric in ("duration", "e2e_latency_batch"):
        return max(ends)
    tokens = sum(len(record.token_at) for record in done)
    rate = tokens / (max(ends) - start)
    return rate / reading.plan.shards if metric.endswith("per_gpu") else rate


# Report.


@dataclass(frozen=True)
class Accuracy:
    """Error of one quantity, as fractions. groups, rows: how many counted. median, p90, mean: over groups' medians."""

    quantity: str
    groups: int
    rows: int
    median: float
    p90: float
    mean: float


def summarise(outcomes: Iterable[ScoredRow]) -> list[Accuracy]:
    """Median per group first, then median and p90 over groups."""
    by_quantity: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        if outcome.error is not None and outcome.use != "info":
            by_quantity[outcome.quantity][outcome.group].append(outcome.error)
    return [_accuracy(quantity, list(groups.values())) for quantity, groups in sorted(by_quantity.items())]


def _accuracy(quantity: str, groups: list[list[float]]) -> Accuracy:
    medians = [median(errors) for errors in groups]
    rows = sum(len(errors) for errors in groups)
    return Accuracy(quantity, len(groups), rows, median(medians), _quantile(medians, 0.9), mean(medians))


def _quantile(values: list[float], level: float) -> float:
    ordered = sorted(values)
    at = level * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _table(accuracies: list[Accuracy]) -> str:
    lines = [f"{'quantity':<30}{'groups':>7}{'rows':>6}{'median error':>14}{'p90':>10}"]
    for each in accuracies:
        figures = f"{format_percent(each.median):>14}{format_percent(each.p90):>10}"
        if each.quantity == FIT:
            figures = f"{f'right in {format_percent(1 - each.mean)} of the groups':>38}"
        lines.append(f"{each.quantity:<30}{each.groups:>7}{each.rows:>6}{figures}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m harness.simulator.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="YAML file of measurements")
    parser.add_argument("--json", action="store_true", help="one JSON document with all rows")
    parser.add_argument("--rows", action="store_true", help="every row, before the table")
    options = parser.parse_args(arguments)
    try:
        outcomes = assess(read(options.file))
    except HarnessError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    accuracies = summarise(outcomes)
    if options.json:
        print(json.dumps(_document(accuracies, outcomes), indent=1))
        return 0
    if options.rows:
        for outcome in outcomes:
            print(_line(outcome))
    print(_table(accuracies))
    skipped = sum(outcome.error is None and outcome.use != "info" for outcome in outcomes)
    print(f"{skipped} rows are not predicted (--json says why)." if skipped else "Every scored row is predicted.")
    return 0


def _line(outcome: ScoredRow) -> str:
    if outcome.error is None:
        return f"{outcome.reading_id}: not predicted: {outcome.skipped}"
    return f"{outcome.reading_id} {outcome.quantity}: {outcome.measured} -> {outcome.predicted} {outcome.error:.3f}"


def _document(accuracies: list[Accuracy], outcomes: list[ScoredRow]) -> dict[str, Any]:
    return {
        "quantities": [vars(each) for each in accuracies],
        "rows": [vars(each) for each in outcomes],
        "method": "median error per group, then median and p90 over groups; memory relative to the GPU's memory",
    }


if __name__ == "__main__":
    sys.exit(main())
