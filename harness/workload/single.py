"""What workloads of single requests have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from harness.workload.request import Player, Request, Script, alone


class SingleRequests(ABC):
    """Each number is one single request."""

    @abstractmethod
    def request(self, number: int) -> Request:
        """What is asked under this number."""

    @property
    def converses(self) -> bool:
        return False

    def start(self, number: int, player: Player | None = None) -> Script:
        return alone(self.request(number))

    def pause_after(self, number: int) -> float:
        return 0.0
