"""Reads a model's own tokenizer.json, so that prompts have the token counts that they have in reality.

Reads what models served today have: byte-level BPE (GPT-2, Llama 3, Qwen), BPE on word marks with bytes as a last
resort (Llama 2, Mistral), and plain word lists. Anything else is refused, and the built-in words are used.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.emulator.tokens import Encoding, Token

_MARK = "\u2581"
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CACHED = 50_000


class Unsupported(ValueError):
    """A tokenizer of a kind that is not read here."""


def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes: printable ones are themselves, the others for code points from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


_TO_LETTER = _byte_letters()
_TO_BYTE = {letter: byte for byte, letter in _TO_LETTER.items()}


@cache
def _ranges(category: str) -> str:
    """A Unicode category as the inside of a character class: Python's re has no properties."""
    members = [c for c in range(0x30000) if unicodedata.category(chr(c))[0] == category]
    spans: list[list[int]] = []
    for member in members:
        if spans and spans[-1][1] == member - 1:
            spans[-1][1] = member
        else:
            spans.append([member, member])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in spans)


def _translate(pattern: str) -> str:
    """A pattern with the properties L and N spelled out."""
    inside, out, at = False, [], 0
    while at < len(pattern):
        if pattern[at : at + 2] == "\\p":
            members = _ranges(pattern[at + 3])
            out.append(members if inside else f"[{members}]")
            at += 5
        elif pattern[at] == "\\":
            out.append(pattern[at : at + 2])
            at += 2
        else:
            inside = pattern[at] == "[" or (inside and pattern[at] != "]")
            out.append(pattern[at])
            at += 1
    return "".join(out)


class ModelTokenizer:
    """The same interface as tokens.Tokenizer, from a tokenizer.json. bos_id, eos_id: None where the model has none."""

    def __init__(self, document: Mapping[str, Any], bos: str | None, eos: str | None) -> None:
        model = document["model"]
        self._vocabulary: dict[str, int] = dict(model["vocab"])
        added = {each["content"]: each["id"] for each in document.get("added_tokens") or []}
        self.special_ids = frozenset(each["id"] for each in document.get("added_tokens") or [] if each.get("special"))
        self._added = added
        self.vocabulary = max([*self._vocabulary.values(), *added.values()], default=0) + 1
        self._texts = {number: text for text, number in [*self._vocabulary.items(), *added.items()]}
        self._split_added = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")
        self._words: Callable[[str], Iterable[str]]
        self._read_splitting(document)
        self._pieces = self._piece_maker(model)
        self._prefix = _prefix_ids(document.get("post_processor"), added)
        self._cache: dict[str, list[int]] = {}
        self.bos_id, self.eos_id = added.get(bos or ""), added.get(eos or "")

    def _read_splitting(self, document: Mapping[str, Any]) -> None:
        normalizers = _flat(document.get("normalizer"), "normalizers")
        steps = _flat(document.get("pre_tokenizer"), "pretokenizers")
        kinds = [step["type"] for step in steps]
        marks = any(each["type"] == "Prepend" for each in normalizers) or "Metaspace" in kinds
        self._bytes = "ByteLevel" in kinds
        self._marks = marks
        patterns = [_pattern(step) for step in steps if step["type"] == "Split"]
        if any(step["type"] == "ByteLevel" and step.get("use_regex", True) for step in steps):
            patterns.append(_GPT2)
        if "Whitespace" in kinds or "WhitespaceSplit" in kinds:
            self._words = re.compile(r"\w+|[^\w\s]+" if "Whitespace" in kinds else r"\S+").findall
        elif marks:
            self._words = lambda text: [_MARK + text.replace(" ", _MARK)] if text else []
        elif patterns:
            self._words = re.compile(_translate(patterns[0])).findall
        elif not kinds:
            self._words = lambda text: [text] if text else []
        else:
            raise Unsupported(f"pre-tokenizer {kinds}")

    def _piece_maker(self, model: Mapping[str, Any]) -> Callable[[str], list[int]]:
        if model.get("type") == "WordLevel":
            unknown = self._vocabulary.get(model.get("unk_token", ""), 0)
            return lambda word: [self._vocabulary.get(word, unknown)]
        if model.get("type") not in ("BPE", None):
            raise Unsupported(f"model {model.get('type')}")
        pairs = [tuple(each.split(" ", 1)) if isinstance(each, str) else tuple(each) for each in model["merges"]]
        ranks = {pair: rank for rank, pair in enumerate(pairs)}
        whole = bool(model.get("ignore_merges"))
        unknown = self._vocabulary.get(model.get("unk_token") or "", 0)
        return lambda word: self._merge(word, ranks, whole, unknown)

    def _merge(self, word: str, ranks: Mapping[tuple[str, ...], int], whole: bool, unknown: int) -> list[int]:
        """Byte pair encoding of one word (Sennrich et al. 2016)."""
        if whole and word in self._vocabulary:
            return [self._vocabulary[word]]
        parts = list(word)
        while len(parts) > 1:
            rank, at = min((ranks.get((a, b), 1 << 60), i) for i, (a, b) in enumerate(pairwise(parts)))
            if rank == 1 << 60:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [number for part in parts for number in self._known(part, unknown)]

    def _known(self, part: str, unknown: int) -> list[int]:
        if part in self._vocabulary:
            return [self._vocabulary[part]]
        by_byte = [self._vocabulary.get(f"<0x{byte:02X}>") for byte in part.encode()]
        return [number for number in by_byte if number is not None] if None not in by_byte else [unknown]

    def encode(self, text: str, special_tokens: bool = True) -> Encoding:
        """The tokens of a text, after those that the model puts in front."""
        ids = list(self._prefix) if special_tokens else []
        at = 0
        for match in self._split_added.finditer(text):
            self._plain(text[at : match.start()], ids)
            ids.append(self._added[match[0]])
            at = match.end()
        self._plain(text[at:], ids)
        return Encoding(ids, [self.text_of(number) for number in ids])

    def _plain(self, text: str, ids: list[int]) -> None:
        for word in self._words(text):
            known = self._cache.get(word)
            if known is None:
                shown = "".join(_TO_LETTER[byte] for byte in word.encode()) if self._bytes else word
                known = self._pieces(shown)
                if len(self._cache) < _CACHED:
                    self._cache[word] = known
            ids += known

    def text_of(self, number: int) -> str:
        """The text of one token, as decoding it alone gives it."""
        piece = self._texts.get(number, "")
        if piece in self._added:
            return piece
        if self._bytes:
            return bytes(_TO_BYTE.get(letter, 63) for letter in piece).decode("utf-8", "replace")
        return piece.replace(_MARK, " ") if self._marks else piece

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of tokens."""
        kept = [number for number in ids if not (skip_special and number in self.special_ids)]
        if not self._bytes:
            return "".join(map(self.text_of, kept))
        letters = "".join(self._texts.get(number, "") for number in kept)
        return b"".join(bytes([_TO_BYTE[c]]) if c in _TO_BYTE else c.encode() for c in letters).decode(
            "utf-8", "replace"
        )

    def offsets(self, text: str, special_tokens: bool = True) -> list[Token]:
        """What /tokenize answers: byte offsets, whole characters even where a token is a part of one.

        The tokens put in front have no place in the text.
        """
        front = len(self._prefix) if special_tokens else 0
        ids = self.encode(text, special_tokens).ids
        data, tokens, at = text.encode(), [Token(number, "", 0, 0) for number in ids[:front]], 0
        for number in ids[front:]:
            piece = self._texts.get(number, "")
            size = len(piece) if self._bytes and piece not in self._added else len(self.text_of(number).encode())
            start, stop = at, min(len(data), at + size)
            at = stop
            while start and _continues(data, start):
                start -= 1
            while stop < len(data) and _continues(data, stop):
                stop += 1
            tokens.append(Token(number, data[start:stop].decode("utf-8", "replace"), start, stop))
        return tokens

    def words(self) -> list[tuple[int, str]]:
        """Plain words with a space before them, for answers."""
        found = []
        for number in sorted(self._texts):
            text = self.text_of(number)
            if len(text) > 3 and text[0] == " " and text[1:].isascii() and text[1:].isalpha() and text.islower():
                found.append((number, text))
                if len(found) == 600:
                    break
        return found


def _continues(data: bytes, at: int) -> bool:
    """Whether a character began before this byte."""
    return data[at] & 0xC0 == 0x80


def _flat(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return [inner for each in step[key] for inner in _flat(each, key)] if step["type"] == "Sequence" else [step]


def _pattern(step: Mapping[str, Any]) -> str:
    pattern = step["pattern"]
    return str(pattern["Regex"]) if "Regex" in pattern else re.escape(str(pattern["String"]))


def _prefix_ids(processor: Mapping[str, Any] | None, added: Mapping[str, int]) -> list[int]:
    """The special tokens before a single text."""
    for step in _flat(processor, "processors"):
        if step["type"] == "TemplateProcessing":
            ids: list[int] = []
            for part in step["single"]:
                if "Sequence" in part:
                    return ids
                ids.append(added[part["SpecialToken"]["id"]])
            return ids
    return []


def read_tokenizer(directory: Path, bos: str | None, eos: str | None) -> ModelTokenizer | None:
    """The tokenizer of a model directory; None where there is none that can be read."""
    try:
        document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer = ModelTokenizer(document, bos, eos)
    except (OSError, ValueError, KeyError, TypeError, re.error):
        return None
    return tokenizer if len(tokenizer.words()) >= 50 else None
