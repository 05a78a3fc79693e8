"""Reads a YAML file into values that know their line, and a list of mistakes.

Scalars keep the text that was written, so that `revision: 0123456` and `version: 3.10` mean what they look like.
Repeated keys are found here; what a key may hold is the business of schema.py. ruamel.yaml is imported here alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from harness.errors import LONGEST, UsageError
from harness.input_files import as_text, brief, read_bytes

NodeKind = Literal["null", "bool", "int", "float", "text", "list", "mapping"]

_KINDS: Mapping[str, NodeKind] = {"null": "null", "bool": "bool", "int": "int", "float": "float"}
_MERGE = "tag:yaml.org,2002:merge"
_MOST_DEPTH = 100
_MOST_MISTAKES = 50  # that are shown
_LONGEST_PATH = 400  # characters; the end of a longer one tells the file
_SHOWN = 80  # characters of a value, in a message


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in a file. line: from 1, None where no line is concerned. key: the path of the key, `a/b/c`."""

    line: int | None
    key: str
    text: str

    def render(self, file: str) -> str:
        place = file if self.line is None else f"{file}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class CatalogueError(UsageError):
    """All mistakes of one file, one line each."""

    def __init__(self, file: str, mistakes: list[Mistake]) -> None:
        self.mistakes = tuple(sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.line or 0))
        file = file if len(file) <= _LONGEST_PATH else f"…{file[-_LONGEST_PATH:]}"
        lines: list[str] = []
        room = LONGEST - len(f"{file}: and {len(self.mistakes):,} more")
        for mistake in self.mistakes[:_MOST_MISTAKES]:
            line = mistake.render(file)
            room -= len(line) + 1
            if lines and room < 0:
                break
            lines.append(line)
        if len(self.mistakes) > len(lines):
            lines.append(f"{file}: and {len(self.mistakes) - len(lines):,} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Value:
    """One YAML value. text: a scalar as it was written, without quotes. line: of its key where it has one.

    start, end: offsets in the file's text; of a block mapping or list, the end is that of its last scalar. shared: it
    has an anchor or came by an alias. merged: names of entries that came by a merge key (`<<`).
    """

    kind: NodeKind
    line: int
    text: str = ""
    quoted: bool = False
    items: tuple[Value, ...] = ()
    entries: Mapping[str, Value] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    flow: bool = False
    shared: bool = False
    merged: frozenset[str] = frozenset()

    @property
    def found(self) -> str:
        """How a message names it: `'fast'`, `12`, `nothing`, `a list`."""
        if self.kind in ("list", "mapping"):
            return f"a {self.kind}"
        if self.kind == "null":
            return "nothing"
        shown = brief(self.text, most=_SHOWN)
        return f"'{shown}'" if self.kind == "text" else shown


def read_text(path: Path) -> str:
    """The file's text. Raises UsageError where it is missing, unreadable, too large or not UTF-8."""
    if not path.exists():
        raise UsageError("no such file", where=str(path), advice="Name a catalogue with --catalogue FILE.")
    return as_text(read_bytes(path), path)


def parse(text: str, file: str) -> tuple[Value, list[Mistake]]:
    """The document's root and the mistakes of its form. Raises CatalogueError where it is not valid YAML or empty."""
    try:
        yaml = YAML(typ="rt")
        yaml.max_depth = _MOST_DEPTH
        nodes = list(_compose_all(yaml, text))
        if not nodes:
            raise CatalogueError(file, [Mistake(None, "", "holds nothing; expected `models:` with at least one entry")])
        reader = _Reader(file)
        root = reader.value(nodes[0], "", nodes[0].start_mark.line + 1)
    except MarkedYAMLError as error:
        raise CatalogueError(file, [_syntax_mistake(error, text)]) from error
    except RecursionError as error:
        raise CatalogueError(file, [Mistake(None, "", "is nested too deep")]) from error
    except (YAMLError, ValueError, TypeError, OverflowError, AttributeError, LookupError) as error:
        # Besides its own errors, ruamel lets through what int() and chr() say, and trips over some syntax itself.
        raise CatalogueError(file, [Mistake(None, "", f"not YAML: {brief(error)}")]) from error
    if len(nodes) > 1:
        line = nodes[1].start_mark.line + 1
        reader.mistakes.append(Mistake(line, "", "a second YAML document (`---`); expected one"))
    return root, reader.mistakes


def _compose_all(yaml: YAML, text: str) -> Iterator[Node]:
    _, parser = yaml.get_constructor_parser(text)
    yaml.composer.warn_double_anchors = False  # YAML 1.2, 3.2.2.2: the later one holds
    try:
        while yaml.composer.check_node():
            yield yaml.composer.get_node()
    finally:
        parser.dispose()


def _syntax_mistake(error: MarkedYAMLError, text: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return Mistake(None, "", f"not YAML: {problem}")
    lines = text.splitlines()
    tab = mark.line < len(lines) and lines[mark.line].lstrip(" ").startswith("\t")
    hint = ". Indent with spaces, not with tabs" if tab else ""
    return Mistake(mark.line + 1, "", f"column {mark.column + 1}: not YAML: {problem}{hint}")


_MOST_VALUES = 100_000  # of a file with its aliases written out; aliases of aliases multiply


class _Reader:
    """Turns ruamel's nodes into Values and notes what no catalogue may hold: repeated keys, tags, loops."""

    def __init__(self, file: str) -> None:
        self._file, self._values = file, 0
        self.mistakes: list[Mistake] = []
        self._seen: set[int] = set()
        self._open: list[Node] = []

    def value(self, node: Node, key: str, line: int) -> Value:
        self._values += 1
        if self._values > _MOST_VALUES:
            text = f"more than {_MOST_VALUES:,} values with its aliases written out"
            raise CatalogueError(self._file, [Mistake(line, key, text)])
        shared = node.anchor is not None or id(node) in self._seen
        self._seen.add(id(node))
        if any(node is each for each in self._open):
            self.mistakes.append(Mistake(line, key, "an alias of the mapping that it is in"))
            return Value("null", line)
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, key, line, shared)
            if isinstance(node, SequenceNode):
                return self._list(node, key, line, shared)
            return self._scalar(node, key, line)
        finally:
            self._open.pop()

    def _scalar(self, node: Node, key: str, line: int) -> Value:
        tag = str(node.tag)
        if not tag.startswith("tag:yaml.org,2002:"):
            self.mistakes.append(Mistake(line, key, f"the YAML tag {tag} means nothing here"))
        kind = _KINDS.get(tag.rpartition(":")[2], "text")
        start, end = node.start_mark.index, node.end_mark.index
        return Value(kind, line, str(node.value), quoted=bool(getattr(node, "style", None)), start=start, end=end)

    def _list(self, node: SequenceNode, key: str, line: int, shared: bool) -> Value:
        items = tuple(
            self.value(item, f"{key}[{index}]", item.start_mark.line + 1) for index, item in enumerate(node.value)
        )
        start, end = node.start_mark.index, node.end_mark.index
        flow = bool(node.flow_style)
        if not flow and items:
            end = items[-1].end
        return Value("list", line, items=items, start=start, end=end, flow=flow, shared=shared)

    def _mapping(self, node: MappingNode, key: str, line: int, shared: bool) -> Value:
        merged: dict[str, Value] = {}
        entries: dict[str, Value] = {}
        end = node.start_mark.index
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.mistakes.append(Mistake(key_line, key, "expected a name as key, found a list or a mapping"))
                continue
            name = str(key_node.value)
            path = f"{key}/{name}" if key else name
            value = self.value(value_node, path, key_line)
            end = max(end, value.end if value.end >= key_node.end_mark.index else key_node.end_mark.index + 1)
            if str(key_node.tag) == _MERGE:
                merged.update(self._merge(value, path))
            elif name in entries:
                first = entries[name].line
                self.mistakes.append(Mistake(key_line, path, f"given twice; the first time in line {first}"))
            else:
                entries[name] = value
        flow = bool(node.flow_style)
        end = node.end_mark.index if flow else end
        return Value(
            "mapping",
            line,
            entries={**merged, **entries},
            start=node.start_mark.index,
            end=end,
            flow=flow,
            shared=shared,
            merged=frozenset(merged) - frozenset(entries),
        )

    def _merge(self, value: Value, path: str) -> dict[str, Value]:
        """What `<<: *anchor` brings in; of several, the first wins (YAML 1.1 merge keys)."""
        sources = value.items if value.kind == "list" else (value,)
        merged: dict[str, Value] = {}
        for source in reversed(sources):
            if source.kind != "mapping":
                self.mistakes.append(Mistake(value.line, path, f"expected a mapping to merge, found {source.found}"))
            merged.update(source.entries)
        return merged
