"""The image of a sidecar: the pinned one where a registry can be reached, else one built from a package."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Mapping

from harness.errors import MissingError
from harness.stack import docker_images
from harness.stack.document import LABEL, compose_file

BUILT = "harness-"  # what names of images that were built here begin with
# By program: the file of compose/ that builds it from its PyPI or Debian package. Grafana is in neither.
DOCKERFILES: Mapping[str, str] = {"litellm": "gateway.Dockerfile", "prometheus": "prometheus.Dockerfile"}


def ensure(image: str, engine: str, say: Callable[[str], None]) -> str:
    """The image that is here afterwards: this one, else one that was built. Raises MissingError when neither works,
    UsageError for an image that the registry does not have.
    """
    if docker_images.image_exists(image):
        return image
    built = _tag(engine) if engine in DOCKERFILES else None
    if built is not None and docker_images.image_exists(
        built
    ):  # a registry could not be reached once; it is not asked again
        return built
    say(f"pulling {image}")
    try:
        docker_images.pull(image, say, threading.Event())
    except MissingError as error:
        if built is None:
            raise
        say(f"{error.found}; building it from compose/{DOCKERFILES[engine]} instead, which takes minutes")
        docker_images.build(_context(compose_file(DOCKERFILES[engine])), "Dockerfile", built, {f"{LABEL}image": engine})
        return built
    return image


def _tag(engine: str) -> str:
    """A changed file is another image."""
    digest = hashlib.sha256(compose_file(DOCKERFILES[engine]).encode()).hexdigest()
    return f"{BUILT}{engine}:{digest[:12]}"


def _context(dockerfile: str) -> bytes:
    buffer, data = io.BytesIO(), dockerfile.encode()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
