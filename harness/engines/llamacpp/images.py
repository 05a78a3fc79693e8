"""llama.cpp's server images: kinds, tags, what a container of one needs, and where the Hub token goes.

From .devops/*.Dockerfile, .github/workflows/docker.yml and make-release.yml, docs/docker.md and docs/build.md of
0c1e57098. An image is published of one build a day; a release's number is a second tag of one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.catalog.models import Model
from harness.engines import hub_cache
from harness.engines.base import Container, Hardware
from harness.errors import UsageError

IMAGE = "ghcr.io/ggml-org/llama.cpp"
TOKEN_FILE = "/run/secrets/hub-token"
# llama.cpp takes the Hub token from its environment alone, and only of the Hub's own form (common/hf-cache.cpp).
_EXPORT_TOKEN = (
    f'export HF_TOKEN="$(cat {TOKEN_FILE})"; exec "$(command -v llama-server || echo /app/llama-server)" "$@"'
)

VARIANTS: Mapping[str, Hardware] = {
    "cuda": Hardware("-cuda", accelerator="nvidia"),  # CUDA 12
    "cuda13": Hardware("-cuda13", accelerator="nvidia"),
    # The container's root owns both devices; the groups that docs/docker.md adds are for other users.
    "rocm": Hardware(
        "-rocm",
        "devices",
        devices=("/dev/kfd", "/dev/dri"),
        visible="ROCR_VISIBLE_DEVICES",
        resource="amd.com/gpu",
    ),
    "vulkan": Hardware("-vulkan", "devices", devices=("/dev/dri",), visible="GGML_VK_VISIBLE_DEVICES", resource=None),
    "cpu": Hardware(),
}


def image_name(version: str, hardware: Hardware) -> str:
    """`ghcr.io/ggml-org/llama.cpp:server-cuda-b11347`; without a number for `latest`."""
    return f"{IMAGE}:server{hardware.suffix}{_tag(version)}"


def _tag(version: str) -> str:
    if version in ("latest", ""):
        return ""
    if re.fullmatch(r"\d{4,}", version):
        return f"-b{version}"
    return f"-v{version}" if version[0].isdigit() else f"-{version}"


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
        image=model.engine.image or image_name(model.engine.version, hardware),
        hardware=hardware,
        cache_volume=hub_cache.VOLUME,
        cache_target=hub_cache.TARGET,
        entrypoint=("bash", "-c", _EXPORT_TOKEN, "llama-server") if with_token else (),
        token_places=(TOKEN_FILE,) if with_token else (),
    )
