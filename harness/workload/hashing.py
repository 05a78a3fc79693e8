"""A hash of what a run asked: equal for runs that asked the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def hash_of(asked: Mapping[str, Any]) -> str:
    """Of what is asked, seed and salt left out: repeats of one workload with other seeds are the same workload."""
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
