"""The settings that were measured, to be copied."""

from __future__ import annotations

import shlex

from harness.report.capacity.subject import SearchReport
from harness.report.document import Code, Facts, Section


def section(searched: SearchReport) -> Section | None:
    """None where the run is gone."""
    manifest = searched.manifest
    if manifest is None:
        return None
    pairs = [
        ("Model", f"{manifest.model}{f' @ {manifest.revision}' if manifest.revision else ''}"),
        ("Engine", manifest.engine),
        ("Image", " ".join(part for part in (manifest.image, manifest.image_digest) if part) or "not known"),
        ("Command of the search", shlex.join(manifest.command)),
    ]
    flags = "\n".join(f"{name}={value}" for name, value in manifest.flags.items())
    return Section("Settings to copy", (Facts(tuple(pairs)), *((Code(flags),) if flags else ())))
