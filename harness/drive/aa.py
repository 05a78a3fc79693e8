"""The spread measured between repeats of the same thing (A/A), stored in the state folder.

`bench --repeat N --aa` writes it, and `compare` judges single runs of the same service, workload and machine by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import as_type, read_json_object
from harness.measure.run import Run
from harness.measure.run_folder import utc_text, write_atomically
from harness.stack.state import subfolder
from harness.stats.comparable import question_of, service_of
from harness.stats.effect import Spread, Spreads

SCHEMA = 1
_MOST = 1e6  # of a deviation of logarithms, and of degrees of freedom


def store(run: Run, spreads: Spreads) -> None:
    """Keep the spread of runs like this one."""
    key = key_of(run)
    document = {
        "schema": SCHEMA,
        "key": key,
        "measured": utc_text(datetime.now(timezone.utc)),
        "spreads": [[load, figure, each.deviation, each.freedom] for (load, figure), each in spreads.items()],
    }
    write_atomically(_file(key), json.dumps(document, indent=1).encode())


def find(run: Run) -> Spreads:
    """What runs of the same service, workload and machine were seen to differ by; empty where nobody measured it."""
    key = key_of(run)
    path = _file(key)
    try:
        document = read_json_object(path) if path.exists() else {}
        if document.get("schema") != SCHEMA or document.get("key") != key:
            return {}
        rows = as_type(list[tuple[str, str, float, float]], document["spreads"], path)
    except (UsageError, KeyError):
        return {}
    return {
        (load, figure): Spread(deviation, freedom)
        for load, figure, deviation, freedom in rows
        if 0 <= deviation < _MOST and 0 < freedom < _MOST
    }


def key_of(run: Run) -> dict[str, Any]:
    """What must be the same for one run's spread to hold for another; the load is part of each spread."""
    asked = {name: parts for name, parts in question_of(run.manifest).items() if name != "load"}
    host = {name: run.manifest.host.get(name) for name in ("system", "cpus", "memory_bytes")}
    return {**service_of(run.manifest), "asked": asked, "host": host}


def _file(key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return subfolder("aa") / f"{digest}.json"
