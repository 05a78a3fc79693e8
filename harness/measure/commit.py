"""The git commit of the working directory, by which a figure in a history is found."""

from __future__ import annotations

import os
import re
import subprocess

# What CI systems say: GitHub, GitLab, Buildkite, Jenkins.
VARIABLES = ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "GIT_COMMIT")
_COMMIT = re.compile(r"[0-9a-f]{7,64}(-dirty)?")


def commit() -> str | None:
    """Twelve digits, `-dirty` behind them where files were changed; else what CI says; None where nobody knows."""
    try:
        asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if _COMMIT.fullmatch(found):
        return found
    told = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), "")
    return told[:12] if _COMMIT.fullmatch(told) else None
