"""SGLang's image, and what a container of it needs.

From docs/get_started/install.md of sgl-project/sglang: `docker run --shm-size 32g --ipc=host lmsysorg/sglang`.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.catalog.models import Model
from harness.engines import hub_cache
from harness.engines.base import NVIDIA, Container, Hardware
from harness.errors import UsageError

# The same parser as that of `sglang serve`, which older releases do not have.
PROGRAM: tuple[str, ...] = ("python3", "-m", "sglang.launch_server")
# Not read-only: kernels are compiled to ~/.triton and ~/.cache/flashinfer.
VARIANTS: Mapping[str, Hardware] = {"cuda": NVIDIA}


def container_of(model: Model, *, with_token: bool) -> Container:
    """How the image is run. Raises UsageError for a variant that there is none of."""
    hardware = VARIANTS.get(model.engine.variant)
    if hardware is None:
        raise UsageError(
            f"no stack for the image variant {model.engine.variant!r}",
            where=model.name,
            advice=f"Known: {', '.join(VARIANTS)}.",
        )
    return Container(
        image=model.engine.image or image_name(model.engine.version),
        hardware=hardware,
        cache_volume=hub_cache.VOLUME,
        cache_target=hub_cache.TARGET,
        entrypoint=PROGRAM,
        plain_entrypoint=PROGRAM,
        token_places=(hub_cache.TOKEN_PLACE,) if with_token else (),
        shared_memory="32gb",
    )


def image_name(version: str) -> str:
    """`lmsysorg/sglang:v0.5.23`."""
    number = version.removeprefix("v")
    return f"lmsysorg/sglang:{number if number == 'latest' else 'v' + number}"
