"""What to set, with the reason for each."""

from __future__ import annotations

from harness.probe.file import ProbeFile
from harness.report.document import Bullets, Code, Section


def section(found: ProbeFile) -> Section | None:
    """To be copied unchanged."""
    flags = "\n".join(f"{name}={value}" for name, value in found.recommended_flags.items())
    lines = tuple(f"{name}: {why}" for name, why in found.reasons.items())
    blocks = (*((Code(flags),) if flags else ()), *((Bullets(lines),) if lines else ()))
    return Section("Settings to copy", blocks) if blocks else None
