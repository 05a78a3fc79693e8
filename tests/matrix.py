"""`make test-all`: the tests on every supported Python found here, then the larger container tests on this one.

    python -m tests.matrix [3.10 3.13]

Pythons are looked for on PATH and in ~/.pyenv/versions. Environments and logs are kept in build/matrix/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Containers and browsers do not depend on the Python that drives them: `make test` covers them once.
EVERYWHERE = "not docker and not containers and not browser"


@dataclass(frozen=True)
class Result:
    """One line of the table. passed: None where there was nothing to run it on."""

    name: str
    passed: bool | None
    said: str

    def __str__(self) -> str:
        verdict = {True: "passed", False: "FAILED", None: "skipped"}[self.passed]
        return f"{self.name:<22}{verdict:<9}{self.said}"


def find_python(version: str) -> str | None:
    """The newest interpreter of this version; a shim that starts another one or none is passed over."""
    installed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    newest_first = sorted(installed, key=lambda path: _numbers(path.parts[-3]), reverse=True)
    candidates = [shutil.which(f"python{version}"), *map(str, newest_first), sys.executable]
    return next((each for each in candidates if each and _version_of(each) == version), None)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _version_of(python: str) -> str | None:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        asked = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def run_on(version: str) -> Result:
    """The suite on this Python, in an environment of its own."""
    python = find_python(version)
    name = f"Python {version}"
    if python is None:
        return Result(name, None, "not found on PATH or in ~/.pyenv/versions")
    log = BUILD / f"{version}.log"
    environment = BUILD / version
    installed = environment / ".installed"
    if not installed.exists() or installed.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        steps = [
            [python, "-m", "venv", "--clear", str(environment)],
            [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--editable", ".[dev]"],
        ]
        for step in steps:
            if _logged(step, log).returncode != 0:
                return Result(name, False, f"could not be set up: {log.relative_to(ROOT)}")
        installed.touch()
    return _pytest(name, str(environment / "bin" / "python"), EVERYWHERE, log)


def _pytest(name: str, python: str, marks: str, log: Path) -> Result:
    begun = time.monotonic()
    code = _logged([python, "-m", "pytest", "-m", marks, "-p", "no:cacheprovider", "-v", "--color=no"], log).returncode
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|skipped)", last[0] if last else ""))
    said = f"{counts or 'no counts'} in {time.monotonic() - begun:.0f} s"
    return Result(name, code == 0, said if code == 0 else f"{said}: {log.relative_to(ROOT)}")


def _logged(command: list[str], log: Path) -> subprocess.CompletedProcess[bytes]:
    with log.open("wb") as file:
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=_environment())


def _environment() -> dict[str, str]:
    """Without what the environment that runs this would hand on to the others."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def main(asked: list[str]) -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = 0
    for version in asked or PYTHONS:
        result = run_on(version)
        print(result, flush=True)
        failed += result.passed is False
    if not asked:
        result = _pytest("larger containers", sys.executable, "containers", BUILD / "containers.log")
        print(result, flush=True)
        failed += result.passed is False
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
