"""Evidence: what is known of one level; Reason: what a validity rule may say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.measure.client import ClientFacts, ClientSample
from harness.measure.records import Records
from harness.measure.run_folder import Level, Manifest
from harness.stats.conversations import Conversations
from harness.stats.figure import Figure
from harness.stats.server import NOTHING_TOLD, ServerFigures
from harness.stats.slo import Attainment
from harness.stats.telemetry import NOTHING_READ, Telemetry
from harness.stats.window import Window

About = Literal["client", "server", "data"]


@dataclass(frozen=True)
class Reason:
    """Why a level's figures may be invalid. found, limit: in words, with units. advice: what to do next."""

    rule: str
    found: str
    limit: str
    advice: str
    about: About = "data"
    level: int | None = None

    def as_dict(self) -> dict[str, object]:
        fields: dict[str, object] = {"rule": self.rule, "found": self.found, "limit": self.limit, "advice": self.advice}
        return fields if self.level is None else {**fields, "level": self.level}


@dataclass(frozen=True)
class Evidence:
    """All that is known of one level. records: of the level. inside: those due in the window.

    samples: what the load processes noted during the level. server: what the engine said of itself. telemetry:
    of its GPUs and of the client's machine.
    """

    manifest: Manifest
    level: Level
    window: Window
    records: Records
    inside: Records
    figures: Mapping[str, Figure]
    attainment: Attainment
    facts: ClientFacts
    samples: tuple[ClientSample, ...]
    server: ServerFigures = NOTHING_TOLD
    telemetry: Telemetry = NOTHING_READ
    conversations: Conversations | None = None

    @property
    def open_loop(self) -> bool:
        return self.level.users is None
