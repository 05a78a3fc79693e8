"""What is expected of a model before its first start."""

from __future__ import annotations

import json
from pathlib import Path

from harness.catalog.models import load_catalogue
from harness.probe.prior import expect
from harness.sizing.known import known_shape

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
}


def test_a_directory_is_what_its_own_file_says_and_not_what_its_name_is_like(tmp_path: Path) -> None:
    """A model of 32,768 tokens in a folder that is called like one of 1,024."""
    folder = tmp_path / "gpt2"
    folder.mkdir()
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(f"models: {{mine: {{repo: {folder}, gpu: L4, engine: {{name: tgi, version: 3.3.7}}}}}}\n")
    entry = load_catalogue(str(catalogue)).models["mine"]
    assert expect(entry, (3, 3, 7), known_shape(entry)).context is None
    (folder / "config.json").write_text(json.dumps(CONFIG))
    told = expect(entry, (3, 3, 7), known_shape(entry))
    assert told.context == 32768
    assert told.kv_bytes == 2 * 22 * 4 * 128 * 2
