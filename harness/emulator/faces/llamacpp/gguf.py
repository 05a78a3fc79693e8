"""Reads the head of a GGUF file: the model's shape, type and size.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts, typed keys and values, then where
each tensor begins. Of the tensors no more is read than whether the file has room for them: one cut off has not.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.shapes import ModelShape

_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# general.file_type (llama.h, llama_ftype).
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 25: "IQ4_NL", 30: "IQ4_XS",
    32: "BF16", 38: "MXFP4",
}  # fmt: skip

# Bytes of 256 values of a tensor by its type (ggml.h, ggml_type; blocks in ggml-common.h).
_SIZES = {
    0: 1024, 1: 512, 2: 144, 3: 160, 6: 176, 7: 192, 8: 272, 10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292,
    16: 66, 17: 74, 18: 98, 19: 50, 20: 144, 21: 110, 22: 82, 23: 136, 24: 256, 25: 512, 26: 1024, 27: 2048, 28: 2048,
    29: 56, 30: 512, 34: 54, 35: 66, 39: 136, 40: 144,
}  # fmt: skip
_ALIGNMENT = 32


class NoGguf(ValueError):
    """The file is not a GGUF file, or lacks what a shape needs; the text is llama.cpp's own where it has one."""


@dataclass(frozen=True)
class GgufModel:
    """file_type: a name such as Q4_K_M. size: of the file, in bytes."""

    shape: ModelShape
    file_type: str
    size: int


def read_gguf(path: Path) -> GgufModel:
    """Raises NoGguf, OSError."""
    size = path.stat().st_size
    if not path.is_file() or size < 24:
        raise NoGguf("gguf_init_from_reader: failed to read magic")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            shown = "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in data[:4])
            raise NoGguf(f"gguf_init_from_reader: invalid magic characters: '{shown}', expected 'GGUF'")
        try:
            head = _Head(data)
            values = head.values()
            _check_bounds(head.tensors(values.get("general.alignment", _ALIGNMENT)), size)
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise NoGguf(f"gguf_init_from_reader: failed to read key-value pairs: {error}") from error
    try:
        return GgufModel(_shape(values, path.stem), _TYPES.get(values.get("general.file_type", 1), "F16"), size)
    except KeyError as error:
        raise NoGguf(f"key not found in model: {error.args[0]}") from error


class _Head:
    """A cursor over the head."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 8

    def values(self) -> dict[str, Any]:
        """Keys with their values; of an array only its length."""
        self._tensors, count = self._take("Q"), self._take("Q")
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            found[key] = self._value(self._take("I"))
        return found

    def tensors(self, alignment: int) -> dict[str, int]:
        """Each tensor's end in the file, behind the keys; those of unknown types left out."""
        ends: dict[str, int] = {}
        for _ in range(self._tensors):
            name, values = self._string(), 1
            for _ in range(self._take("I")):
                values *= self._take("Q")
            kind, offset = self._take("I"), self._take("Q")
            if kind in _SIZES:
                ends[name] = offset + values * _SIZES[kind] // 256
        begin = -(-self._at // alignment) * alignment
        return {name: begin + end for name, end in ends.items()}

    def _take(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def _string(self) -> str:
        length = self._take("Q")
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_FORMS[kind])
        inner, count = self._take("I"), self._take("Q")
        if inner in (_STRING, _ARRAY):
            for _ in range(count):
                self._value(inner)
        else:
            self._at += count * struct.calcsize(f"<{_FORMS[inner]}")
        return count


def _check_bounds(ends: dict[str, int], size: int) -> None:
    for name, end in ends.items():
        if end > size:
            where = "is not within the file bounds, model is corrupted or incomplete"
            raise NoGguf(f"tensor '{name}' data {where}")


def _shape(values: dict[str, Any], name: str) -> ModelShape:
    kind = values["general.architecture"]

    def number(key: str, default: int | None = None) -> int:
        value = values.get(f"{kind}.{key}", default)
        if value is None:
            raise KeyError(f"{kind}.{key}")
        return int(value)

    hidden, heads = number("embedding_length"), number("attention.head_count")
    experts = number("expert_count", 0)
    return ModelShape(
        name=str(values.get("general.name", name)),
        model_type=str(kind),
        layers=number("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", hidden // heads),
        intermediate=number("expert_feed_forward_length" if experts else "feed_forward_length"),
        vocab=int(values.get(f"{kind}.vocab_size") or values["tokenizer.ggml.tokens"]),
        tied=False,
        context=number("context_length"),
        experts=experts,
        experts_per_token=number("expert_used_count", 0),
    )
