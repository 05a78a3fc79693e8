"""What goes into the emulator's image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.stack import emulator_image

IMPORTS_ALL = """
import importlib, json, pkgutil, sys, harness, harness.emulator
from importlib.metadata import packages_distributions
at_first = {{name.partition(".")[0] for name in sys.modules}}
assert harness.__file__.startswith({folder!r})
for each in pkgutil.walk_packages(harness.emulator.__path__, "harness.emulator."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
known = packages_distributions()
loaded = {{name.partition(".")[0] for name in sys.modules}} - at_first
print(json.dumps(sorted({{each for name in loaded for each in known.get(name, [])}})))
"""


def imported(folder: Path) -> list[str]:
    """The packages that the emulator's modules import, all of them, from the files of the image alone."""
    for name, content in emulator_image._content().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_ALL.format(folder=str(folder))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def with_what_they_need(packages: set[str]) -> set[str]:
    """Normalised names of these packages and of what they require in turn."""
    found, todo = set[str](), {canonicalize_name(each) for each in packages}
    while todo:
        name = todo.pop()
        found.add(name)
        required = [Requirement(line) for line in requires(name) or []]
        needed = {canonicalize_name(each.name) for each in required if each.marker is None or each.marker.evaluate()}
        todo |= needed - found
    return found


def test_the_image_holds_all_that_the_emulator_imports(tmp_path: Path) -> None:
    """Its own modules, and every library; what is left out would be missed only in a container."""
    text = emulator_image._content()[emulator_image.REQUIREMENTS].decode()
    named = {Requirement(line).name for line in text.splitlines() if line and not line.startswith("#")}
    optional = {"typing-extensions"}  # libraries take it where it is there
    assert {canonicalize_name(each) for each in imported(tmp_path)} - optional <= with_what_they_need(named)
