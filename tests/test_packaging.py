"""The package that users install: what is in it, and that it works where there is no checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("models.yaml", "compose", "locustfiles")


def build(project: Path, output: Path, target: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(output)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, folder / "made", "sdist")) as archive:
        archive.extractall(folder, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))  # type: ignore[arg-type]
    return next(path for path in folder.iterdir() if path.name != "made")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source package as an index would have it, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(sdist, folder / "made", "wheel")) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def tracked() -> set[str]:
    """Files of the project, as git knows them; those that were not added yet too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("needs a git checkout, whose list of files is what the packages are held against")
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    """Every file of harness/, copies of what stands at the top of the repository; no tests, no leftovers."""
    expected = {name for name in tracked() if name.startswith("harness/")}
    expected |= {f"harness/data/{name}" for name in tracked() if name.split("/")[0] in SHIPPED}
    assert {name for name in files_of(wheel) if ".dist-info/" not in name} == expected
    assert [path.name for path in wheel.glob("*.dist-info/licenses/*")] == ["LICENSE"]


def test_source_package_holds_the_project(sdist: Path) -> None:
    """Tests and documents too, so that a distributor can run them."""
    assert files_of(sdist) - {"PKG-INFO"} == tracked()


def installed(wheel: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the unpacked wheel, in a folder that is no checkout."""
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """Catalogue, data sheets, compose files and workloads are found in the package."""
    where = "import harness; print(harness.__file__)"
    seen = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout.startswith(str(wheel))
    listed = installed(wheel, tmp_path, "models", "list", "--json")
    assert len(json.loads(listed.stdout)) >= 8, listed.stderr
    assert installed(wheel, tmp_path, "models", "check", "qwen2.5-0.5b").returncode == 0
    rendered = installed(wheel, tmp_path, "render", "qwen2.5-0.5b")
    assert list(yaml.safe_load(rendered.stdout)["services"]) == ["qwen2.5-0.5b"], rendered.stderr
    unknown = installed(wheel, tmp_path, "bench", "qwen2.5-0.5b", "--workload", "codes")
    assert unknown.returncode == 2
    assert "Did you mean code?" in unknown.stderr
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_working_directory_win(wheel: Path, tmp_path: Path) -> None:
    """models.yaml, compose/ and locustfiles/ beside the user stand for those of the package."""
    (tmp_path / "models.yaml").write_text("models: {mine: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4}}\n")
    assert [each["name"] for each in json.loads(installed(wheel, tmp_path, "models", "list", "--json").stdout)] == [
        "mine"
    ]
    (tmp_path / "compose").mkdir()
    shipped = (ROOT / "compose" / "service.yaml").read_text()
    (tmp_path / "compose" / "service.yaml").write_text(
        shipped.replace("stop_grace_period: 100s", "stop_grace_period: 7s")
    )
    rendered = installed(wheel, tmp_path, "render", "mine")
    assert yaml.safe_load(rendered.stdout)["services"]["mine"]["stop_grace_period"] == "7s", rendered.stderr
    (tmp_path / "locustfiles").mkdir()
    (tmp_path / "locustfiles" / "questions.py").write_text("class Nobody: pass\n")
    refused = installed(wheel, tmp_path, "bench", "mine", "--runtime", "embedded")
    assert refused.returncode == 2
    assert "locustfiles/questions.py: holds no class derived from StreamUser" in refused.stderr
