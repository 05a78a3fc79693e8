"""Files that are damaged, of another program, or made to hurt: one line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import cli
from harness.commands.models import check_models, list_models
from harness.commands.render import render
from harness.drive.reports import finish
from harness.errors import HarnessError
from harness.measure.arrivals import arrival_of
from harness.measure.journal import JournalWriter
from harness.measure.run import keep_records
from harness.measure.run_folder import Level, RunFolder, write_manifest
from harness.serve.target import Target
from tests.mutations import HOSTILE, damaged_bytes, damaged_document, damaged_json, damaged_yaml
from tests.runs import closed_level, closed_loop, failed, manifest, open_level

SEED = int(os.environ.get("HARNESS_FUZZ_SEED", "1"))
MANY = int(os.environ.get("HARNESS_FUZZ", "1"))  # times the number of cases; `make chaos` tries more

CATALOGUE = """\
defaults:
  gpu: L4
  engine: {name: tgi, version: 3.3.7}
  env: &shared
    A: "x"
models:
  one:
    repo: Qwen/Qwen2.5-7B-Instruct
    revision: a09a35458c702b33eeacc393d103063234e8bc28
    gpus: 1
    dtype: bfloat16
    limits:
      max_input_tokens: 4095
      max_total_tokens: 4096
      max_batch_prefill_tokens: 4096
      max_concurrent_requests: 128
      cuda_memory_fraction: 0.95
    slo: {ttft_p95: 1s, itl_p95: 60ms}
    env:
      <<: *shared
      TEMPLATE: "{{ x }}"
    price_per_gpu_hour: 0.80
    context_length: 32768
    answer_tokens: 512
    start_timeout: 20m
    replicas: 2
    port: 8080
    listen: 127.0.0.1
    trust_remote_code: false
    weight_bytes: 15231233024
  two:
    repo: org/other
    engine:
      name: ENGINE
      args: [--enforce-eager]
    shape:
      model_type: llama
      hidden_size: 4096
      layers: 32
      heads: 32
      kv_heads: 8
      head_dim: 128
      intermediate_size: 14336
      vocab_size: 128256
"""


@pytest.fixture(autouse=True)
def faults_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be exit code 70 for a user fails a test with its traceback."""

    def raised(error: Exception) -> HarnessError:
        raise error

    monkeypatch.setattr("harness.cli.outcome._fault", raised)


def use_catalogue(path: Path) -> None:
    """All that is computed from a catalogue before anything is started."""
    list_models(str(path))
    check_models([], gpu=None, catalogue=str(path))
    for name in ("one", "two"):
        for form in ("compose", "swarm", "kubernetes"):
            targets = [Target(model=name, catalogue=str(path))]
            render(targets, format=form, gateway=True, monitoring=True, output=None)


@pytest.mark.parametrize("engine", ["tgi", "vllm", "sglang", "llamacpp"])
def test_a_damaged_catalogue_is_refused_in_lines_that_name_the_place(tmp_path: Path, engine: str) -> None:
    """Whatever is changed, reading, checking and rendering end well or with the mistakes of the file."""
    path = tmp_path / "models.yaml"
    random_ = random.Random(f"{SEED} {engine}")
    base = CATALOGUE.replace("ENGINE", engine)
    refused = 0
    for number in range(60 * MANY):
        text = damaged_yaml(base, random_)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        refusal = refusal_of(path, f"case {number}: {text!r}")
        if refusal is not None:
            refused += 1
            lines = str(refusal).split("\n")
            assert refusal.exit_code in (2, 3), refusal
            assert len(lines) == 1 or all(line.startswith(str(path)) for line in lines), refusal
    assert refused > 10


def refusal_of(path: Path, case: str) -> HarnessError | None:
    try:
        use_catalogue(path)
    except HarnessError as error:
        return error
    except Exception as error:
        raise AssertionError(case) from error
    return None


def make_run(path: Path, finished: bool) -> RunFolder:
    """Two levels, one of them open, with failures; whole, or killed."""
    levels = [closed_level(0, 2, 0.0, 8.0), open_level(1, 2.0, 10.0, 8.0)]
    if not finished:
        levels[1] = Level(1, rate=2.0, arrival=arrival_of("poisson"), duration=8.0, started_at=10.0)
    folder = RunFolder.create(path)
    plan = manifest(levels, run_id=path.name, slo={"ttft_p95": 1.0, "itl_p95": 0.06}, limits={"max_input_tokens": 9})
    write_manifest(folder, plan if finished else manifest(levels, run_id=path.name, end=None))
    writer = JournalWriter(folder.journal(0))
    writer.note("counting", {"count_told": "per_event"})
    for level in (0, 1):
        for record in closed_loop(closed_level(level, 2, 10.0 * level, 8.0), tokens=4):
            assert record.sent_at is not None
            writer.begin(record.request_id, level, record.scheduled_at, record.sent_at)
            writer.end(record)
        writer.end(failed(900, 10.0 * level + 1, level=level))
    writer.begin("open", 1, 17.0, 17.0)
    for at in (1.0, 5.0, 12.0):
        writer.note("sample", {"at": at, "process": "0", "cpu_fraction": 0.2, "loop_lag_max": 0.001, "streams": 2})
    writer.close()
    if finished:
        pq.write_table(
            pa.table({"at": [1.0, 2.0, 12.0], "metric": ["harness:running"] * 3, "value": [1.0, 2.0, 1.0]}),
            folder.server,
        )
        finish(keep_records(folder), with_reports=False)
    return folder


def damaged_value(value: Any, random_: random.Random) -> Any:
    changed = damaged_document([value], random_)
    return changed[0] if isinstance(changed, list) and len(changed) == 1 else changed


def damaged_table(content: bytes, random_: random.Random) -> bytes:
    """A column gone, of another type, or with values that no run has."""
    table = pq.read_table(pa.BufferReader(content))
    place = random_.randrange(table.num_columns)
    name = table.column_names[place]
    kind = random_.randrange(6)
    if kind == 0:
        changed = table.remove_column(place)
    elif kind == 1:
        other = random_.choice((pa.string(), pa.null(), pa.list_(pa.string()), pa.int32(), pa.float32(), pa.binary()))
        changed = table.set_column(place, name, pa.nulls(len(table), other))
    else:
        values = table[name].to_pylist()
        for row in random_.sample(range(len(values)), min(len(values), random_.choice((1, 3, 1000)))):
            values[row] = random_.choice(HOSTILE) if kind == 5 else damaged_value(values[row], random_)
        try:
            column = pa.array(values, table.schema.field(place).type if random_.random() < 0.7 else None)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return damaged_bytes(content, random_)
        changed = table.set_column(place, name, column)
    buffer = pa.BufferOutputStream()
    try:
        pq.write_table(changed, buffer)
    except pa.ArrowException:
        return damaged_bytes(content, random_)
    return bytes(buffer.getvalue())


def damaged_journal(content: bytes, random_: random.Random) -> bytes:
    """Bytes of an entry changed with its checksum made right again, as by another program; or just bytes."""
    magic, entry = b"harness journal 1\n", struct.Struct("<BII")
    entries, at = [], len(magic)
    while at + entry.size <= len(content):
        kind, length, _ = entry.unpack_from(content, at)
        entries.append((kind, content[at + entry.size : at + entry.size + length]))
        at += entry.size + length
    if random_.random() < 0.3 or not entries:
        return damaged_bytes(content, random_)
    place = random_.randrange(len(entries))
    kind, payload = entries[place]
    changed = damaged_json(payload, random_) if payload[:1] == b"{" else damaged_bytes(payload, random_)
    entries[place] = (random_.choice((kind, kind, kind, random_.randrange(8))), changed)
    return magic + b"".join(entry.pack(kind, len(data), zlib.crc32(data, kind)) + data for kind, data in entries)


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: tuple[tuple[bool, str, Damage], ...] = (
    (True, "manifest.json", damaged_json),
    (True, "client.json", damaged_json),
    (True, "summary.json", damaged_json),
    (True, "records.parquet", damaged_table),
    (True, "records.parquet", damaged_bytes),
    (True, "server.parquet", damaged_table),
    (True, "server.parquet", damaged_bytes),
    (False, "manifest.json", damaged_json),
    (False, "journal-0.log", damaged_journal),
)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {finished: make_run(folder / f"run-{finished}", finished).path for finished in (True, False)}


@pytest.mark.parametrize(("finished", "name", "damage"), DAMAGES)
def test_a_damaged_run_folder_is_reported_or_refused(
    finished: bool, name: str, damage: Damage, tmp_path: Path, whole_runs: dict[bool, Path], capsys: Any
) -> None:
    """`report` and `compare` end with 0, or with one line and 2; also compare with 1, whose figures differ."""
    random_ = random.Random(f"{SEED} {finished} {name} {damage.__name__}")
    content = (whole_runs[finished] / name).read_bytes()
    codes = []
    for number in range((2 if name == "summary.json" else 12) * MANY):
        folder = tmp_path / f"{number}"
        shutil.copytree(whole_runs[finished], folder)
        changed = damage(content, random_)
        (folder / name).write_bytes(changed)
        code = cli.run(["report", str(folder), "--format", "json,markdown,csv,text"])
        said = capsys.readouterr().err
        assert code in (0, 2), (changed, said)
        assert code == 0 or len(said.strip().split("\n")) == 1, said
        codes.append(code)
        if code == 0:
            json.loads((folder / "summary.json").read_text())
            if number % 8 == 0:
                assert cli.run(["compare", str(whole_runs[True]), str(folder)]) in (0, 1, 2)
        shutil.rmtree(folder)
    assert 2 in codes or name in ("summary.json", "server.parquet", "records.parquet")


@pytest.mark.parametrize(("name", "base"), [
    ("gate", "limits: {ttft_p95: 15%, itl: 5%}\ndefault: 10%\ninconclusive: fail\n"),
    ("config", "users: 1,4\nslo: {ttft_p95: 1s}\nno-stream: true\noutput: here\nseed: 1\nrate: [1, 2]\n"),
])  # fmt: skip
def test_damaged_settings_and_gates_are_refused_in_one_line(
    name: str, base: str, tmp_path: Path, whole_runs: dict[bool, Path], capsys: Any
) -> None:
    """A wrong value of an option ends as on the command line: 2, and one line."""
    random_ = random.Random(f"{SEED} {name}")
    path = tmp_path / "file.yaml"
    run = str(whole_runs[True])
    commands = {
        "gate": ["compare", run, run, "--gate", str(path)],
        "config": ["bench", "--url", "not a url", "--config", str(path)],
    }
    for _ in range((40 if name == "config" else 12) * MANY):
        text = damaged_yaml(base, random_)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        code = cli.run(commands[name])
        said = capsys.readouterr().err.strip()
        assert code == 2 or (name == "gate" and code in (0, 1)), (text, said)
        assert code != 2 or len(said.split("\n")) == 1, (text, said)


HURTING = (
    "[" * 9000,
    "x: &a [*a, *a]",
    "b: " + "9" * 9999,
    "b: 0x" + "f" * 9999,
    'b: "\\U00110000"',
    "a: 2020-99-99",
    "a: !!bool x",
    "&a [&b [*a, *b]]",
    "",
    "\0",
    "users: !!binary x",
    "output: [[1]]",
    "a: &a [x]\n" + "".join(f"a{n}: &a [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" for n in range(9)),
)


@pytest.mark.parametrize("text", HURTING)
@pytest.mark.parametrize("option", ["--config", "--gate", "--catalogue"])
def test_files_made_to_hurt_are_refused_at_once(option: str, text: str, tmp_path: Path, capsys: Any) -> None:
    """Nesting, long integers, aliases that multiply, characters beyond Unicode."""
    path = tmp_path / "file.yaml"
    path.write_text(text)
    run = make_run(tmp_path / "run", finished=True).path if option == "--gate" else tmp_path
    arguments = {
        "--config": ["bench", "--url", "http://127.0.0.1:1", "--config", str(path)],
        "--gate": ["compare", str(run), str(run), "--gate", str(path)],
        "--catalogue": ["models", "list", "--catalogue", str(path)],
    }
    code = cli.run(arguments[option])
    said = capsys.readouterr().err.strip()
    assert code == 2 or (option, text) == ("--gate", ""), said
    assert all(len(line) < 500 for line in said.split("\n"))


def test_a_fault_of_ours_has_a_code_of_its_own_and_says_where_to_report_it(
    tmp_path: Path, own_state: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """70, one line, the traceback in a file of mode 0600; with --json a document."""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(own_state))
    monkeypatch.setattr("harness.commands.models.list_models", lambda _: {}["no such"])
    assert cli.run(["models", "list", "--json"]) == 70
    captured = capsys.readouterr()
    assert len(captured.err.strip().split("\n")) == 1
    assert "KeyError" in captured.err
    assert "report" in captured.err
    assert json.loads(captured.out)["error"]["exit_code"] == 70
    (told,) = (own_state / "harness" / "faults").iterdir()
    assert "Traceback" in told.read_text()
    assert told.stat().st_mode & 0o777 == 0o600
    assert str(told) in captured.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_whatever_stdout_can_show_the_command_ends_as_it_should(
    encoding: str, whole_runs: dict[bool, Path], tmp_path: Path
) -> None:
    """Where a character has no place in the encoding it is shown as an escape; JSON stays JSON, also of odd paths."""
    odd = tmp_path / os.fsdecode(b"na\xc3\xafve \xff \x1b[2J\n\xe2\x80\xae'\"$(x)")
    shutil.copytree(whole_runs[True], odd)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "harness", "report", str(odd), "--format", "json,text,markdown", "--json"]
    ended = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)[0] == str(odd / "summary.json")
    command = [sys.executable, "-m", "harness", "report", str(odd / "no"), "--json"]
    ended = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert b"\x1b" not in ended.stderr


def test_a_folder_where_a_file_should_be_is_one_line(whole_runs: dict[bool, Path], tmp_path: Path, capsys: Any) -> None:
    """Also where it is to be written."""
    for name in ("manifest.json", "records.parquet", "summary.json", "client.json", "report.md"):
        folder = tmp_path / name
        shutil.copytree(whole_runs[True], folder)
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
        assert cli.run(["report", str(folder), "--format", "json,markdown"]) in (2, 3)
        assert len(capsys.readouterr().err.strip().split("\n")) == 1


def test_hostile_names_reach_junit_as_text(whole_runs: dict[bool, Path], tmp_path: Path) -> None:
    """XML has no way to write a control code; a reader must get a whole document."""
    folder = tmp_path / os.fsdecode(b"\x1b[2J\xff]]><x a='\"&")
    shutil.copytree(whole_runs[True], folder)
    junit, markdown = tmp_path / "result.xml", tmp_path / "result.md"
    runs = [str(whole_runs[True]), str(folder)]
    assert cli.run(["compare", *runs, "--junit", str(junit), "--markdown", str(markdown)]) in (0, 1)
    assert "\\x1b[2J\\udcff]]><x a='\"&" in "".join(ElementTree.parse(junit).getroot().itertext())
    assert "\x1b" not in junit.read_text() + markdown.read_text()


CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
     "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "tie_word_embeddings": False},
    {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
     "num_attention_heads": 32, "head_dim": 128,
     "num_key_value_heads": 4, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
     "num_experts_per_tok": 8, "vocab_size": 151936, "decoder_sparse_step": 1, "mlp_only_layers": [],
     "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    {"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
     "num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
     "n_shared_experts": 1, "first_k_dense_replace": 3, "q_lora_rank": 1536, "kv_lora_rank": 512,
     "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280},
    {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
     "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 10240,
     "sliding_window": 1024, "vocab_size": 262208}, "vision_config": {"hidden_size": 1152}},
)  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config["model_type"]))
def test_a_damaged_config_of_a_model_is_refused_or_reckoned(
    config: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    """A directory that somebody downloaded by halves: `models check` says what is wrong with its config.json."""
    random_ = random.Random(f"{SEED} {config['model_type']}")
    folder, path = tmp_path / "model", tmp_path / "models.yaml"
    folder.mkdir()
    for _ in range(40 * MANY):
        (folder / "config.json").write_bytes(damaged_json(json.dumps(config).encode(), random_))
        engine = random_.choice(("tgi", "vllm", "sglang"))
        path.write_text(f"models: {{one: {{repo: {folder}, gpu: H100, engine: {{name: {engine}}}}}}}\n")
        code = cli.run(["models", "check", "one", "--catalogue", str(path)])
        assert code in (0, 1, 2), capsys.readouterr().err
        capsys.readouterr()
