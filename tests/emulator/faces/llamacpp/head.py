"""The head of a GGUF file, written for tests."""

from __future__ import annotations

import struct
from typing import Any


def string(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*tensors: tuple[str, int, int, int], **values: int | str | list[str]) -> bytes:
    """The head of a GGUF file of version 3. tensors: name, values, type, offset. Two underscores of a key are a dot."""
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        data += string(key.replace("__", "."))
        if isinstance(value, int):
            data += struct.pack("<II", 4, value)
        elif isinstance(value, str):
            data += struct.pack("<I", 8) + string(value)
        else:
            data += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))
    for name, count, kind, offset in tensors:
        data += string(name) + struct.pack("<IQQIQ", 2, count // 2, 2, kind, offset)
    return data + bytes(-len(data) % 32)


HEAD: dict[str, Any] = {
    "general__architecture": "llama",
    "general__name": "tiny",
    "general__file_type": 7,
    "llama__block_count": 2,
    "llama__embedding_length": 128,
    "llama__attention__head_count": 4,
    "llama__attention__head_count_kv": 2,
    "llama__feed_forward_length": 256,
    "llama__context_length": 8192,
    "tokenizer__ggml__tokens": [f"token{number}" for number in range(300)],
}
