"""What earlier commands left running, found again from the state folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.stack import state
from harness.stack.process import ProcessService
from harness.stack.service import Service

if TYPE_CHECKING:
    from harness.stack.docker import ComposeService


def service_of(record: state.Remembered) -> ProcessService | ComposeService:
    """The handle of a remembered service."""
    if record.runtime in ("compose", "swarm"):
        from harness.stack.docker import ComposeService  # the SDK takes a moment to load, and may not be needed

        return ComposeService(record)
    return ProcessService.found_again(record)


def service_named(name: str) -> ProcessService | ComposeService | None:
    """What `up` left running under this name; None when there is none, or it has ended."""
    record = state.recall(name)
    if record is None or record.name != name or record.attached is not None:
        return None
    service = service_of(record)
    return service if service.state().running else None


def digest_of(service: Service) -> str | None:
    """The hash of what was asked for; None where it is somebody else's."""
    digest = getattr(service, "digest", None)
    return digest if isinstance(digest, str) else None
