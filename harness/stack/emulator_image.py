"""The emulator's image: what goes into it, its tag, and building it when it is not there."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from harness import __version__
from harness.errors import MissingError
from harness.stack import docker, docker_images
from harness.stack.document import LABEL, compose_file

DOCKERFILE = "compose/emulator.Dockerfile"
REQUIREMENTS = "compose/emulator-requirements.txt"
# The parts of the package that the emulator may import (docs/architecture.md), and nothing else.
GROUND = ("__init__", "errors", "input_files", "interrupts", "redaction", "terminal", "text", "units")
PARTS = (*(f"{name}.py" for name in GROUND), "catalog", "measure", "simulator", "emulator")


def emulator_image() -> str:
    """Its tag, from the version and a hash of all that goes in: a changed emulator is another image."""
    digest = hashlib.sha256()
    for name, content in sorted(_content().items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"harness-emulator:{__version__}-{digest.hexdigest()[:12]}"


def ensure(image: str, say: Callable[[str], None]) -> None:
    """Build it unless it is there. Raises MissingError when that fails."""
    if docker_images.image_exists(image):
        return
    say("building the emulator's image")
    content = _content()
    try:
        docker_images.build(_tar(content), DOCKERFILE, image, _LABELS)
    except MissingError:
        wheels = _wheels(content[REQUIREMENTS].decode())
        if not wheels:
            raise
        docker_images.build(_tar(content | wheels), DOCKERFILE, image, _LABELS)
    docker_images.remove_older_images(image, f"{LABEL}image=emulator")


_LABELS = {f"{LABEL}image": "emulator"}


def _content() -> dict[str, bytes]:
    """The build context: path -> bytes."""
    content = {name: compose_file(Path(name).name).encode() for name in (DOCKERFILE, REQUIREMENTS)}
    package = Path(str(files("harness")))
    for part in PARTS:
        root = package / part
        found = [root] if root.is_file() else sorted(root.rglob("*")) if root.is_dir() else []
        for path in found:
            if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
                content[f"harness/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    return content


def _tar(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in sorted(content.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}


def _wheels(requirements: str) -> dict[str, bytes]:
    """Wheels for the image's Python, fetched by this host's pip; empty where that fails too."""
    machine = _PLATFORMS.get(str(docker.engine().version().get("Arch")), "x86_64")
    with tempfile.TemporaryDirectory() as folder:
        needed = [line for line in requirements.splitlines() if line.strip() and not line.startswith("#")]
        tags = [part for level in ("2_17", "2014", "2_28") for part in ("--platform", f"manylinux{level}_{machine}")]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", folder]
        command = [*pip, "--python-version", "3.11", "--implementation", "cp", *tags, *needed]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return {}
        return {f"compose/wheels/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
