"""The stand-in launcher as a program that can be run, and what must be true after every test with processes."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parent / "stand_in.py"


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    """Path of a program that behaves like TGI's launcher."""
    program = tmp_path / "text-generation-launcher"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)
