"""Reads files that people or other programs wrote: within bounds, and refused in one line that says what is wrong.

A file may be cut, of another program, or made to hurt: nested a thousand levels deep, with integers of 5,000 digits, or
with aliases that multiply. Whatever comes of such a file here is a UsageError. msgspec is imported here alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from harness.errors import MissingError, UsageError

T = TypeVar("T")

MOST_BYTES = 4 << 20  # of a file that people write
_MOST_VALUES = 100_000  # of such a file, aliases written out
_MOST_INTEGER = 2**63
_MOST_NUMBER = 2.0**63
_SHOWN = 200  # characters of a parser's own words


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The file's content, also of a pipe such as `<(command)`. Raises UsageError where it is missing, unreadable or
    larger than `most`.
    """
    try:
        with path.open("rb") as file:
            content = bytearray()  # read(most) would set aside the whole of it
            while len(content) <= most and (part := file.read(1 << 20)):
                content += part
    except MemoryError as error:
        raise out_of_memory(path) from error
    except FileNotFoundError as error:
        raise UsageError("no such file", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:  # a zero byte in the name
        raise UsageError(f"is not a file's name: {error}", where=repr(str(path))) from error
    if len(content) > most:
        raise UsageError(f"is larger than {most >> 20} MiB", where=str(path))
    return bytes(content)


class _OncePerKey(yaml.SafeLoader):
    """Of a key that is there twice, the last would win unseen; YAML itself has no such mappings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (key.tag, key.value) in seen:
                    found = f"{key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, found, node.start_mark)
                seen.add((key.tag, key.value))
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path) -> Any:
    """A short YAML file of plain values: nothing that is nested too deep, too long or an integer beyond 64 bits, and no
    key twice.
    """
    text = as_text(read_bytes(path), path)
    try:
        document = yaml.load(text, Loader=_OncePerKey)
    except RecursionError as error:
        raise UsageError("is nested too deep", where=str(path)) from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, LookupError) as error:
        # Besides its own errors, PyYAML lets through what int(), chr() and date() say of a scalar.
        raise UsageError(f"not valid YAML: {brief(error)}", where=str(path)) from error
    _require_bounded(document, path)
    return document


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file that a program wrote. Raises UsageError."""
    if path.exists() and not path.is_file():
        raise UsageError("is not a regular file", where=str(path))
    try:
        document = json.loads(as_text(read_bytes(path, most=1 << 40), path))
    except RecursionError as error:
        raise UsageError("is nested too deep", where=str(path)) from error
    except MemoryError as error:
        raise out_of_memory(path) from error
    except ValueError as error:
        raise UsageError(f"not valid JSON: {brief(error)}", where=str(path)) from error
    if not isinstance(document, dict):
        raise UsageError("expected a JSON object", where=str(path))
    return document


def as_type(
    kind: type[T], document: Any, where: object, readers: Mapping[type, Callable[[Any], Any]] | None = None
) -> T:
    """A dataclass from a document, with the types that its fields say; keys that it does not have are passed over.

    readers: of types that the document holds as text, which raise ValueError. Raises UsageError that names the
    place, such as `$.levels[0].users`.
    """

    def read(wanted: type, value: Any) -> Any:
        if readers is None or wanted not in readers or not isinstance(value, str):
            raise ValueError(f"expected {wanted.__name__.lower()}, found {value!r}")
        return readers[wanted](value)

    try:
        return msgspec.convert(document, type=kind, dec_hook=read)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise UsageError(f"not as expected: {brief(error)}", where=str(where)) from error
    except RecursionError as error:
        raise UsageError("is nested too deep", where=str(where)) from error


def as_text(content: bytes, where: object) -> str:
    """UTF-8, with or without a byte order mark. Raises UsageError that names the byte and its line."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"not UTF-8: byte 0x{content[error.start]:02x} in line {line}"
        raise UsageError(found, where=str(where), advice="Save the file as UTF-8.") from error


def brief(error: object, most: int = _SHOWN) -> str:
    """A library's words on one line, cut, without characters that a terminal would act on."""
    words = " ".join(str(error).split())
    shown = "".join(each if each.isprintable() else "�" for each in words)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def out_of_memory(path: object) -> MissingError:
    return MissingError("does not fit into the free memory", where=str(path), advice="Free some memory.")


def require_finite(document: Any, where: object) -> None:
    """Raises UsageError where a document holds a number that is none, or that no float and no count holds: it could not
    be written again.
    """
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            waiting += node.values() if isinstance(node, dict) else node
        elif isinstance(node, (int, float)) and not abs(node) < _MOST_NUMBER:
            raise UsageError(f"not as expected: the number {brief(node)}", where=str(where))


def _require_bounded(document: Any, path: Path) -> None:
    """No recursion: what is nested deep, or holds itself, must not bring this down."""
    waiting: list[Iterable[Any]] = [[document]]
    count = 0
    while waiting:
        for value in waiting.pop():
            count += 1
            if count > _MOST_VALUES:
                raise UsageError(f"holds more than {_MOST_VALUES:,} values", where=str(path))
            if isinstance(value, int) and not -_MOST_INTEGER <= value < _MOST_INTEGER:
                raise UsageError("holds a whole number beyond 64 bits", where=str(path))
            if isinstance(value, dict):
                waiting += [value.keys(), value.values()]
            elif isinstance(value, (list, tuple, set)):
                waiting.append(value)


def numbers_in(node: Any) -> Iterator[float]:
    """All numbers of a document, however deep in mappings and lists; no key is one."""
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield node
    elif isinstance(node, (Mapping, list, tuple)):
        for each in node.values() if isinstance(node, Mapping) else node:
            yield from numbers_in(each)
