"""The rule of who may import whom, read from the code itself."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "harness"

# From top to bottom; a part may import what stands on a lower floor, and itself. Parts on one floor do not know each
# other. `emulator` stands aside: nobody imports it.
FLOORS = [
    {"cli"},
    {"commands", "settings"},
    {"drive"},
    {"serve"},
    {"report"},
    {"stack", "probe", "preflight", "load", "stats", "sizing"},
    {"engines", "simulator"},
    {"catalog", "workload", "measure"},
    {"input_files"},
    {"terminal"},
    {"errors", "units", "redaction", "text", "interrupts"},
]
ALLOWED_EXTRA = {
    "__main__": {"cli", "emulator", "interrupts"},  # hands `emulate` over to the emulator's own process
    "emulator": {"simulator", "catalog", "measure", "errors", "units", "input_files", "redaction", "text"},
    "report": {"stats", "probe", "measure", "catalog", "errors", "units", "input_files", "redaction", "text"},
    "stats": {"measure", "catalog", "errors", "units", "input_files", "redaction", "text"},
    "engines": {"catalog", "workload", "errors", "units", "input_files", "redaction", "text"},
    "simulator": {"catalog", "measure", "errors", "units", "input_files", "redaction", "text"},
}

# Each library has one door, so that it can be replaced, faked or upgraded in one place.
DOORS = {
    "typer": {"cli/"},
    "msgspec": {"input_files.py"},
    "ruamel": {"catalog/"},
    "huggingface_hub": {"catalog/hub.py"},
    "text_generation": {"engines/tgi/first_answer.py"},
    "docker": {"stack/docker.py", "stack/docker_images.py", "stack/compose_stack.py", "stack/compose_service.py"},
    "locust": {"load/"},
    "gevent": {"load/"},
    "aiohttp": {"load/"},
    "requests": {"engines/session.py", "engines/client.py", "stack/docker.py"},
    "prometheus_client": {"load/samplers/engine.py", "emulator/faces/page.py"},
    "pynvml": {"load/samplers/nvidia.py"},
    "amdsmi": {"load/samplers/amd.py"},
    "vl_convert": {"report/drawing.py"},
    "scipy": {"stats/"},
    "uvloop": {"emulator/"},
    "jinja2": {"emulator/", "report/", "stack/"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "data" not in path.relative_to(PACKAGE).parts[:1])


def imports(path: Path) -> list[str]:
    """Dotted names that a module imports, of modules or of what is in them: also for types, and inside functions."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(part: str) -> set[str]:
    if part in ALLOWED_EXTRA:
        return ALLOWED_EXTRA[part]
    floor = next((number for number, names in enumerate(FLOORS) if part in names), None)
    assert floor is not None, f"harness/{part} stands on no floor: add it to FLOORS and to docs/architecture.md"
    return set().union(*FLOORS[floor + 1 :])


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    """A module imports only from floors below its own, and from its own part."""
    part = part_of(path)
    if part == "__init__":
        return
    for name in imports(path):
        if name.split(".")[0] != "harness" or name == "harness.__version__":
            continue
        target = name.split(".")[1]
        assert target == part or target in allowed(part), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_library_has_one_door(path: Path) -> None:
    """A library is imported only where its door is."""
    place = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or any(place.startswith(door) for door in doors), f"{place} imports {name}"


def test_no_modules_import_each_other() -> None:
    """No module of the package imports itself by way of others."""
    known = {module_name(path): path for path in modules()}

    def module_of(name: str) -> str:
        return name if name in known else name.rpartition(".")[0]

    graph = {module: {module_of(name) for name in imports(path)} & known.keys() for module, path in known.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a circle


def test_help_loads_no_heavy_package() -> None:
    """`harness --help` and the import of the command line load none of the packages that take long."""
    heavy = [
        "locust",
        "gevent",
        "numpy",
        "pyarrow",
        "altair",
        "docker",
        "huggingface_hub",
        "text_generation",
        "aiohttp",
    ]
    script = f"import sys, harness.cli; print([name for name in {heavy!r} if name in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
