"""The GPUs that serve the model: power, energy, memory, utilisation, clocks, and what throttles them.

Only where the service's own process holds a GPU of this host are the figures that GPU's: those of a card that is merely
here say nothing of a service that runs elsewhere, or that computes on another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from harness.load.samplers import amd, nvidia
from harness.load.samplers.base import NotMeasured, SampledService, SampledValue, own
from harness.load.samplers.cards import Card, NoLibrary
from harness.load.samplers.who_serves import ServedElsewhere, serving_processes

IN_USE = 0.02  # of a card's memory: more than a desktop or a context without a model takes of a large one


@dataclass(frozen=True)
class Maker:
    cards: Callable[[], Iterator[Card]]
    close: Callable[[], None]


MAKERS = (Maker(nvidia.cards, nvidia.close), Maker(amd.cards, amd.close))


class GpuSampler:
    """gpu_power_watts, gpu_energy_joules_total, gpu_memory_used_bytes, gpu_memory_used_ratio, gpu_busy_ratio,
    gpu_clock_hertz, gpu_memory_clock_hertz, gpu_slowed_ratio, gpu_slowed_by_<cause>_ratio; each with the label `gpu`.
    """

    name = "gpu"

    def __init__(self, service: SampledService) -> None:
        self._service = service
        self._cards: list[Card] | None = None

    def read(self) -> Sequence[SampledValue]:
        try:
            if self._cards is None:
                self._cards = self._those_that_serve()
            return [
                own(name, value, gpu=card.index, model=card.name)
                for card in self._cards
                for name, value in card.read().items()
            ]
        except NoLibrary as error:
            raise NotMeasured(str(error)) from error

    def close(self) -> None:
        for maker in MAKERS:
            maker.close()

    def _those_that_serve(self) -> list[Card]:
        if self._service.emulated:
            raise NotMeasured("the engine is emulated, and no GPU serves")
        try:
            serving = serving_processes(self._service.endpoint.url)
        except ServedElsewhere as error:
            raise NotMeasured(str(error)) from error
        here = _cards_here()
        held = [card for card in here if serving.hold(card.processes())]
        if held:
            return held
        if serving.tell_apart and any(map(_visible, here)):
            raise NotMeasured(f"{serving.name}, which answers there, holds no GPU of this machine")
        in_use = [card for card in here if card.read().get("gpu_memory_used_ratio", 0.0) > IN_USE]
        if len(in_use) != 1 or not serving.own:
            raise NotMeasured(f"which of this machine's {len(here)} GPUs serves is not told")
        return in_use


def _visible(card: Card) -> bool:
    """Whether its processes are named by the numbers that they have here: not so within a container."""
    return any(psutil.pid_exists(each) for each in card.processes())


def _cards_here() -> list[Card]:
    found, why = list[Card](), list[str]()
    for maker in MAKERS:
        try:
            found += maker.cards()
        except NoLibrary as error:
            why.append(str(error))
    if not found:
        raise NotMeasured("; ".join(why) or "this machine has no GPU")
    return found
