"""One setting of an entry on one card, tried by its engine's memory law."""

from __future__ import annotations

from dataclasses import dataclass

from harness.catalog.gpus import Gpu
from harness.catalog.models import Model
from harness.catalog.shapes import ModelShape
from harness.engines import engine_of, stored_as
from harness.errors import UsageError
from harness.simulator import fit as law_of_memory
from harness.simulator.fit import Candidate
from harness.simulator.world import World
from harness.sizing.known import loaded_bytes


@dataclass(frozen=True)
class Trial:
    """What is the same in all settings that are tried. used_bytes: of the entry's own kind of GPU, by others."""

    shape: ModelShape
    gpu: Gpu
    used_bytes: int

    def candidate(self, model: Model, gpu: Gpu) -> Candidate | None:
        """The entry as its engine's law takes it."""
        law = engine_of(model).memory_law(model)
        if law is None:
            return None
        return Candidate(
            law=law.name,
            shape=self.shape,
            gpu=gpu,
            shards=model.gpus,
            dtype=model.dtype,
            quantize=stored_as(model, self.shape),
            kv_cache_dtype=model.kv_cache_dtype,
            options=law.options,
            world=World(used_by_others=self.used_bytes if gpu is self.gpu else 0),
            weight_bytes=loaded_bytes(model, self.shape),
        )

    def refusal(self, model: Model, gpu: Gpu) -> str | None:
        """What the engine does not do on this card. Compute capability 0.0 means another maker's, which is not
        judged.
        """
        law, candidate = engine_of(model).memory_law(model), self.candidate(model, gpu)
        if law is None or candidate is None or gpu.compute_capability == (0, 0):
            return None
        for least, lacking in law.needs:
            if gpu.compute_capability < least:
                return f"{gpu.name} {lacking}"
        return law_of_memory.refusal(candidate)

    def fits(self, model: Model, gpu: Gpu) -> bool:
        try:
            candidate = self.candidate(model, gpu)
        except UsageError:
            return False
        return candidate is not None and self.refusal(model, gpu) is None and law_of_memory.fits(candidate)
