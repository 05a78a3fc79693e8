"""`harness migrate`: every setting is accounted for, and the new entry is one that its engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.commands.migrate import migrate
from harness.engines import ENGINES, engine_named, load_catalogue
from harness.engines.base import Place
from harness.engines.tgi.options import OPTIONS
from harness.errors import UsageError

TARGETS = [engine.name for engine in ENGINES if "tgi" in engine.guides()]
FULL = """
models:
  chat:
    repo: some/chat
    revision: abc
    gpu: L4
    gpus: 2
    quantize: fp8
    kv_cache_dtype: fp8
    limits: {max_input_tokens: 3000, max_total_tokens: 4096, max_batch_prefill_tokens: 512}
    slo: {ttft_p95: 1s}
    env: {CUDA_GRAPHS: "1,2,4", SPECULATE: "3", PREFIX_CACHING: "0", ODD_THING: x}
    answer_tokens: 256
  plain: {repo: some/plain, env: {MAX_TOTAL_TOKENS: "2048"}}
"""
# Where it listens, its places and its parts: what every start is given anew.
OF_THE_START = {
    "HOSTNAME", "PORT", "SHARD_UDS_PATH", "MASTER_ADDR", "MASTER_PORT", "SHARDED", "HUGGINGFACE_HUB_CACHE",
    "WEIGHTS_CACHE_OVERRIDE", "NGROK", "NGROK_AUTHTOKEN", "NGROK_EDGE", "API_KEY", "ENABLE_CUDA_GRAPHS",
}  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(FULL)
    return path


def weights(target: str) -> dict[str, str]:
    """llama.cpp needs a file."""
    return {"repo": "some/chat-GGUF", "file": "chat-q8_0.gguf"} if target == "llamacpp" else {}


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_has_a_row(target: str, catalogue: Path) -> None:
    """What it becomes, or that it becomes nothing and what to do instead."""
    found = migrate("chat", target, catalogue=catalogue)
    settings = {row.setting for row in found.rows}
    assert {"repo", "gpus", "limits/max_input_tokens", "limits/max_total_tokens", "env/CUDA_GRAPHS"} <= settings
    for row in found.rows:
        assert row.becomes or row.note, row.setting
    unknown = next(row for row in found.rows if row.setting == "env/ODD_THING")
    assert (unknown.becomes, "no counterpart" in unknown.note) == ("", True)
    text = found.as_text()
    assert text.count("limits/max_total_tokens") == 1
    assert found.habits
    assert found.routes


@pytest.mark.parametrize("target", TARGETS)
def test_the_new_entry_is_one_that_its_engine_takes(target: str, catalogue: Path) -> None:
    """It is written below the others, says the same, and can be started."""
    found = migrate("chat", target, write="new", catalogue=catalogue, **weights(target))
    assert found.written == str(catalogue)
    model = load_catalogue(catalogue).models["new"]
    engine = engine_named(target)
    assert (model.engine.name, model.slo.as_dict(), model.answer_tokens) == (target, {"ttft_p95": 1.0}, 256)
    command = engine.invocation(model, engine.version(model.engine.version), Place("127.0.0.1", 1)).args
    assert any("some/chat" in word for word in command)
    assert load_catalogue(catalogue).models["chat"].engine.name == "tgi"


@pytest.mark.parametrize("target", TARGETS)
def test_a_variable_goes_by_the_key_that_it_stands_for(target: str, catalogue: Path) -> None:
    """MAX_TOTAL_TOKENS in `env` is the limit, wherever it was written."""
    row = next(row for row in migrate("plain", target, catalogue=catalogue).rows if row.value == "2048")
    assert row.setting == "limits/max_total_tokens"
    assert "2048" in row.becomes


@pytest.mark.parametrize("target", TARGETS)
def test_the_table_knows_every_option_of_tgi(target: str) -> None:
    """Each option of its launcher is in the table, is a key of the entry, or belongs to a start."""
    guide = engine_named(target).guides()["tgi"]
    keys = set(engine_named("tgi").accepts.twins)
    assert {name for name in OPTIONS if f"env/{name}" not in guide.settings} - keys - OF_THE_START == set()


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("chat", "tgi", "is served by TGI already"),
        ("chat", "vlm", "unknown engine 'vlm'"),
        ("chad", "vllm", "Did you mean chat"),
    ],
)
def test_what_cannot_be_translated_is_refused(name: str, target: str, words: str, catalogue: Path) -> None:
    """With what could be."""
    with pytest.raises(UsageError, match=words):
        migrate(name, target, catalogue=catalogue)


@pytest.mark.skipif("llamacpp" not in TARGETS, reason="no llama.cpp among the engines")
def test_weights_that_the_engine_cannot_read_are_said_and_not_written(catalogue: Path) -> None:
    """llama.cpp serves GGUF files: without one the table is shown, and nothing is added."""
    assert migrate("chat", "llamacpp", catalogue=catalogue).refused is not None
    with pytest.raises(UsageError, match="is not written"):
        migrate("chat", "llamacpp", write="new", catalogue=catalogue)
    assert "new" not in load_catalogue(catalogue).models
