"""What all render targets share: the files of compose/, and YAML that every reader reads alike.

Every value goes through a YAML library and never through string formatting, so no model name, path or option can
change a document's structure.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError

LABEL = "harness."  # what labels of ours begin with


def compose_file(name: str) -> str:
    """A file of compose/: of the working directory, else of the package, else of the checkout."""
    candidates = [Path("compose") / name, Path(str(files("harness").joinpath("data/compose"))) / name]
    candidates.append(Path(__file__).resolve().parents[2] / "compose" / name)
    for path in candidates:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise UsageError(f"compose/{name} is neither here nor in the package", advice="Install harness again.")


def escaped(value: Any) -> Any:
    """The same document with every `$` doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    return [escaped(each) for each in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Strings that YAML readers take for something else are quoted by SafeDumper; shared parts are written out, not
    aliased.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


# What some reader of YAML might take for a number, a moment or a truth value. Compose reads YAML 1.2, where `1e3` is a
# number, and this library writes 1.1, where it is none.
_AMBIGUOUS = re.compile(r"[-+.\d].*|(?i:y|n|yes|no|on|off|true|false|null|~|)", re.DOTALL)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "'" if _AMBIGUOUS.fullmatch(value) else None
    if not value.isprintable():  # other kinds of line breaks would be folded within single quotes
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)


class Literal(str):
    """A whole file within a document: written line by line, not as one quoted string."""


_Dumper.add_representer(
    Literal, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|")
)


def to_yaml(document: Any) -> str:
    """The document as YAML that every reader reads alike; keys keep their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
