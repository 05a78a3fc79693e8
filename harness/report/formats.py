"""FORMATS: every form that a report comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from harness.errors import UsageError
from harness.report.document import Document


@dataclass(frozen=True)
class Format:
    """name: as on the command line. file: its name in the run's folder. function: `to_<name>`, in a module so named."""

    name: str
    file: str
    function: str

    def render(self, document: Document) -> str:
        # The HTML report draws with libraries that take a second to load; who asks for JSON does not wait for them.
        module = import_module(f"harness.report.{self.function}")
        make: Callable[[Document], str] = getattr(module, self.function)
        return make(document)


FORMATS: tuple[Format, ...] = (
    Format("html", "report.html", "to_html"),
    Format("markdown", "report.md", "to_markdown"),
    Format("json", "summary.json", "to_json"),
    Format("csv", "report.csv", "to_csv"),
    Format("text", "report.txt", "to_text"),
)


def find_format(name: str) -> Format:
    """Raises UsageError that names those there are."""
    for each in FORMATS:
        if name.lower() in (each.name, each.file.rpartition(".")[2]):
            return each
    raise UsageError(f"unknown format {name!r}", advice=f"Known: {', '.join(each.name for each in FORMATS)}.")
