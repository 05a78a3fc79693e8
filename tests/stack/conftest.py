"""The stand-in launcher as a program that can be run, and what must be true after every test with processes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

STAND_IN = Path(__file__).parent / "stand_in.py"


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    """Path of a program that behaves like TGI's launcher."""
    program = tmp_path / "text-generation-launcher"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.fixture
def no_process_left(own_state: Path) -> Iterator[None]:
    """Nothing that was started in the test is alive after it, in whatever session it lives."""
    os.environ["HARNESS_TEST_STATE"] = str(own_state)
    yield
    del os.environ["HARNESS_TEST_STATE"]
    assert [each for each in psutil.process_iter() if _came_from(each, str(own_state))] == []


def _came_from(process: psutil.Process, state: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("HARNESS_TEST_STATE") == state
    except (psutil.Error, OSError):
        return False
