"""Services that earlier commands left running, found by the state folder."""

from __future__ import annotations

from harness.stack import state
from harness.stack.process import ProcessService
from harness.stack.service import OwnService


def service_of(record: state.ServiceRecord) -> OwnService:
    """The handle of a remembered service."""
    if record.runtime == "swarm":
        from harness.stack.swarm import SwarmService

        return SwarmService(record)
    if record.runtime == "compose":
        from harness.stack.compose_service import (
            ComposeService,  # the SDK takes a moment to load, and may not be needed
        )

        return ComposeService(record)
    return ProcessService.found_again(record)


def service_named(name: str) -> OwnService | None:
    """The first of those; None when there is none."""
    services = services_of(name)
    return services[0] if services else None


def services_of(model: str) -> list[OwnService]:
    """What `up` left for this entry, one per replica, running or ended."""
    records = [record for record in state.recall_all() if record.attached is None]
    return [service_of(record) for record in records if record.model == model]


def all_services() -> list[OwnService]:
    """Everything that is remembered: what `up` left, and what a harness that is gone did not stop."""
    return [service_of(record) for record in state.recall_all() if not _somebody_works_with(record)]


def abandoned() -> list[OwnService]:
    """Containers that a command had for itself and, killed, did not stop. Processes have a watchdog that does."""
    return [
        service_of(record)
        for record in state.recall_all()
        if record.attached is not None and not state.owner_lives(record) and state.is_passing(record.marker)
    ]


def _somebody_works_with(record: state.ServiceRecord) -> bool:
    """A service of a probe or bench that is under way is theirs to stop."""
    return record.attached is not None and state.owner_lives(record)


def projects_at_work() -> set[str]:
    """Compose projects that a harness is working with, or that `up` left."""
    records = state.recall_all()
    return {each.marker for each in records if each.attached is None or _somebody_works_with(each)}
