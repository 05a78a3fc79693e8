"""What was run where, and how to run it again."""

from __future__ import annotations

import shlex

from harness.report.document import Facts, Section
from harness.stats.summary import Summary
from harness.units import format_count


def section(summary: Summary) -> Section | None:
    """Names and values; nothing that is not known."""
    manifest = summary.manifest
    pairs = [
        ("Run", manifest.run_id),
        ("Command", shlex.join(manifest.command)),
        ("Start, end (UTC)", f"{manifest.start} – {manifest.end or 'none'}"),
        ("Model", f"{manifest.model}{f' @ {manifest.revision}' if manifest.revision else ''}"),
        ("Engine", manifest.engine + (", emulated" if manifest.emulated else "")),
        ("Runtime", manifest.runtime or ""),
        ("Service", manifest.url or ""),
        ("Image", " ".join(part for part in (manifest.image, manifest.image_digest) if part)),
        ("GPU", f"{manifest.gpus} x {manifest.gpu}" if manifest.gpu else ""),
        ("Driver", manifest.driver or ""),
        ("Engine settings", ", ".join(f"{name}={value}" for name, value in manifest.flags.items())),
        ("Effective limits", ", ".join(f"{name} {format_count(value)}" for name, value in manifest.limits.items())),
        ("Host", ", ".join(f"{name}: {value}" for name, value in manifest.host.items())),
        ("API", f"{manifest.api}, {'streamed' if manifest.stream else 'not streamed'}"),
        ("Workload", ", ".join(f"{name}: {value}" for name, value in manifest.workload.items())),
        ("Data", ", ".join(f"{name}: {value}" for name, value in (manifest.dataset or {}).items())),
        ("Seeds", ", ".join(f"{name}: {value}" for name, value in manifest.seeds.items())),
        ("harness", manifest.harness_version),
    ]
    return Section("Run", (Facts(tuple((name, value) for name, value in pairs if value)),), detail=True)
