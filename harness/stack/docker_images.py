"""Images: fetched, built, looked for and removed."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import docker
import docker.errors
import docker.models.containers
from docker.utils import parse_repository_tag

from harness.errors import HarnessError, Interrupted, MissingError, UsageError
from harness.stack.docker import SDK_ERRORS, engine, lost
from harness.units import format_bytes

_FRESH = 600.0  # seconds from the build of an image to a container of it, at the most


def pull(image: str, say: Callable[[str], None], cancelled: threading.Event) -> None:
    """Fetch an image unless it is there. say: gets what is done and, after a colon, how far it is, not too often.

    Raises UsageError (no such image) or MissingError.
    """
    client = engine()
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(image)
        return
    repository, tag = parse_repository_tag(image)
    pulled = _PullProgress()
    try:
        for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if cancelled.is_set():
                raise Interrupted()
            if "error" in event:
                raise _cannot_pull(image, str(event["error"]))
            if (told := pulled.after(event)) is not None:
                say(told)
    except SDK_ERRORS as error:
        raise _cannot_pull(image, str(getattr(error, "explanation", None) or error)) from error


class _PullProgress:
    """How far a pull is, from Docker's events. Layers are fetched a few at a time, and unpacked in their order."""

    def __init__(self, beat: float = 5.0) -> None:
        """beat: seconds between two words on the same thing."""
        self._beat = beat
        self._waiting: set[str] = set()
        self._fetched: dict[str, tuple[int, int]] = {}
        self._unpacked: dict[str, int] = {}
        self._began = self._spoke = time.monotonic()
        self._doing = ""

    def after(self, event: Mapping[str, Any]) -> str | None:
        """What to say; None for nothing new."""
        self._note(str(event.get("status")), str(event.get("id")), event.get("progressDetail") or {})
        done, total = (sum(part) for part in zip(*self._fetched.values(), strict=True)) if self._fetched else (0, 0)
        doing = "unpacking the image" if total and done == total and not self._waiting else "pulling the image"
        now = time.monotonic()
        if doing == self._doing and now - self._spoke < self._beat:
            return None
        self._doing, self._spoke = doing, now
        if not total:
            return doing
        if doing.startswith("unpacking"):
            return f"{doing}: {format_bytes(sum(self._unpacked.values()))} of {format_bytes(total)}"
        rate = format_bytes(done / max(now - self._began, 1e-3))
        return f"{doing}: {format_bytes(done)} of {format_bytes(total)}, {rate}/s"

    def _note(self, status: str, layer: str, detail: Mapping[str, Any]) -> None:
        size = self._fetched.get(layer, (0, 0))[1]
        if status == "Pulling fs layer":
            self._waiting.add(layer)
        elif status == "Downloading" and detail.get("total"):
            self._fetched[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif status in ("Download complete", "Already exists"):
            self._waiting.discard(layer)
            self._fetched[layer] = (size, size)
        elif status == "Extracting" and detail.get("current"):
            self._unpacked[layer] = min(int(detail["current"]), size)
        elif status == "Pull complete":
            self._waiting.discard(layer)
            self._unpacked[layer] = size


def _cannot_pull(image: str, reason: str) -> HarnessError:
    text = reason.strip().splitlines()[0][:200] if reason.strip() else "no reason given"
    if any(word in reason for word in ("manifest unknown", "not found", "repository does not exist")):
        return UsageError(f"no image {image} ({text})", advice="Check the entry's `engine`.")
    if "no space left" in reason.lower():
        return MissingError(
            f"no disk space for the image {image}", advice="Free some: `docker system df` shows what is used."
        )
    return MissingError(f"cannot pull {image}: {text}", advice="Check the network, or `docker pull` it by hand.")


def image_exists(image: str) -> bool:
    try:
        engine().images.get(image)
    except docker.errors.ImageNotFound:
        return False
    except SDK_ERRORS as error:
        raise lost(error) from error
    return True


def build(context: bytes, dockerfile: str, tag: str, labels: Mapping[str, str]) -> None:
    """Build an image from a tar archive. Raises MissingError with the builder's last line."""
    last = ""
    try:
        events = engine().api.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            dockerfile=dockerfile,
            tag=tag,
            labels=dict(labels),
            network_mode="host",  # where the host reaches a package index, the build does too
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            if "error" in event:
                raise MissingError(
                    f"cannot build {tag}: {event['error'].strip()} {last}".strip(),
                    advice="Check the network of Docker builds.",
                )
            last = str(event.get("stream") or "").strip() or last
    except SDK_ERRORS as error:
        raise lost(error) from error


def remove_older_images(tag: str, label: str) -> None:
    """Images of this label under other tags, unless a container uses them or one is about to: they are fresh."""
    name = tag.partition(":")[0]
    try:
        for image in engine().images.list(filters={"label": label}):
            if _age(image.attrs.get("Created", "")) < _FRESH:
                continue
            for other in image.tags:
                if other != tag and other.partition(":")[0] == name:
                    with contextlib.suppress(docker.errors.APIError):
                        engine().images.remove(other)
    except SDK_ERRORS as error:
        raise lost(error) from error


def _age(created: str) -> float:
    """Seconds since a moment as Docker writes it, `2026-01-01T00:00:00.123456789Z`; 0 for what is none."""
    try:
        moment = datetime.strptime(created[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    return (datetime.now(timezone.utc) - moment).total_seconds()


def image_digest(image: str | None) -> str | None:
    """`name@sha256:...` of an image that came from a registry, else the image's own id; None when it is not here."""
    try:
        found = engine().images.get(image) if image else None
    except (*SDK_ERRORS, MissingError):
        return None
    if found is None:
        return None
    digests = found.attrs.get("RepoDigests") or []
    return str(digests[0] if digests else found.id)
