"""vLLM's images: kinds, tags, and what a container of one needs.

From docs/deployment/docker.md and docs/getting_started/installation/{gpu.rocm,cpu.x86}.inc.md of vllm-project/vllm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.catalog.models import Model
from harness.catalog.version import EVER, Version, version_text
from harness.engines import hub_cache
from harness.engines.base import Container, Hardware
from harness.errors import UsageError

# Some images start by `python3 -m vllm.entrypoints.openai.api_server`, which takes no model without `--model`.
PROGRAM: tuple[str, ...] = ("vllm", "serve")


@dataclass(frozen=True)
class Variant:
    """One kind of image. repository: on Docker Hub. since: the first release that was published under it."""

    repository: str
    hardware: Hardware
    since: Version = EVER


# Not read-only: kernels are compiled to ~/.triton, ~/.cache/vllm and ~/.cache/flashinfer.
VARIANTS: Mapping[str, Variant] = {
    "cuda": Variant("vllm/vllm-openai", Hardware(accelerator="nvidia")),
    "rocm": Variant(
        "vllm/vllm-openai-rocm",
        Hardware(
            "-rocm",
            "devices",
            devices=("/dev/kfd", "/dev/dri"),
            groups=("video",),
            capabilities=("SYS_PTRACE",),
            security=("seccomp=unconfined",),
            host_ipc=True,
            visible="ROCR_VISIBLE_DEVICES",
            resource="amd.com/gpu",
        ),
        since=(0, 14, 0),
    ),
    # SYS_NICE: threads are bound to the cores of one NUMA node.
    "cpu": Variant("vllm/vllm-openai-cpu", Hardware("-cpu", capabilities=("SYS_NICE",)), since=(0, 18, 1)),
}


def container_of(model: Model, version: Version, *, with_token: bool) -> Container:
    """How the image is run. Raises UsageError for a variant that there is none of."""
    variant = _variant_named(model.engine.variant, version, model.name)
    return Container(
        image=model.engine.image or image_name(model.engine.version, variant),
        hardware=variant.hardware,
        cache_volume=hub_cache.VOLUME,
        cache_target=hub_cache.TARGET,
        entrypoint=PROGRAM,
        plain_entrypoint=PROGRAM,
        token_places=(hub_cache.TOKEN_PLACE,) if with_token else (),
        # Its processes talk through /dev/shm: NCCL, and a ring of 240 MiB per group (shm_broadcast.py).
        shared_memory="8gb" if model.gpus > 1 else "2gb",
    )


def image_name(version: str, variant: Variant) -> str:
    """`vllm/vllm-openai:v0.32.0`."""
    number = version.removeprefix("v")
    return f"{variant.repository}:{number if number == 'latest' else 'v' + number}"


def _variant_named(name: str, version: Version, where: str) -> Variant:
    variant = VARIANTS.get(name)
    if variant is None:
        raise UsageError(
            f"no stack for the image variant {name!r}", where=where, advice=f"Known: {', '.join(VARIANTS)}."
        )
    if version < variant.since:
        raise UsageError(
            f"vLLM {version_text(version)} has no image {variant.repository}: it came with"
            f" {version_text(variant.since)}",
            where=where,
            advice="Take a newer engine version.",
        )
    return variant
