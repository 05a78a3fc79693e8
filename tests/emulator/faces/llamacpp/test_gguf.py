"""GGUF: a file's head tells the model, and is refused where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.emulator.faces.llamacpp.gguf import NoGguf, read_gguf
from tests.emulator.faces.llamacpp.head import HEAD, gguf


def test_a_files_head_tells_its_shape(tmp_path: Path) -> None:
    """Sizes, vocabulary and type; the file's own size is the weights'."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(**HEAD) + bytes(5000))
    read = read_gguf(path)
    shape = read.shape
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (2, 128, 4, 2, 32)
    assert (shape.vocab, shape.context, shape.intermediate) == (300, 8192, 256)
    assert (read.file_type, read.size) == ("Q8_0", path.stat().st_size)
    assert shape.experts == 0


@pytest.mark.parametrize("length", [30, 200, 3000])
def test_a_cut_head_is_refused(length: int, tmp_path: Path) -> None:
    """Wherever it was cut."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(**HEAD)[:length])
    with pytest.raises(NoGguf, match="failed to read key-value pairs"):
        read_gguf(path)


def test_a_head_without_its_sizes_is_refused(tmp_path: Path) -> None:
    """By the key that is missing, in llama.cpp's words."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(**{key: value for key, value in HEAD.items() if key != "llama__block_count"}))
    with pytest.raises(NoGguf, match=r"key not found in model: llama\.block_count"):
        read_gguf(path)


# 64 values as they lie in a file, by their type: F32, F16, Q8_0, Q4_0, MXFP4.
@pytest.mark.parametrize(("kind", "size"), [(0, 256), (1, 128), (8, 68), (2, 36), (39, 34)])
def test_a_file_without_room_for_its_tensors_is_refused(kind: int, size: int, tmp_path: Path) -> None:
    """One byte less than its last tensor needs, which a download left out."""
    path = tmp_path / "m.gguf"
    head = gguf(("first", 64, 0, 0), ("second", 64, kind, 256), **HEAD)
    path.write_bytes(head + bytes(256 + size))
    assert read_gguf(path).shape.layers == 2
    path.write_bytes(head + bytes(256 + size - 1))
    with pytest.raises(NoGguf, match="tensor 'second' data is not within the file bounds"):
        read_gguf(path)
