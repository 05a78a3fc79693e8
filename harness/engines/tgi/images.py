"""TGI's images: kinds, tags, what a container of one needs, and where the Hub token goes.

From its Dockerfiles and .github/workflows/build.yaml at the release tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.catalog.models import Model
from harness.catalog.version import EVER, Version, version_text
from harness.engines.base import Container, Hardware
from harness.errors import UsageError


@dataclass(frozen=True)
class Variant:
    """One kind of TGI's image. since: the first release that was published.

    sharded: variables that several shards need besides. cache: `home` keeps models in /data/hub (HF_HOME=/data), `hub`
    in /data itself (HUGGINGFACE_HUB_CACHE=/data), so the two must not share a volume. script: the first release whose
    container starts by /tgi-entrypoint.sh, before by the launcher itself; None for always the latter. exec: the first
    release whose script hands its process over to the launcher.
    """

    hardware: Hardware
    since: Version = EVER
    sharded: Mapping[str, str] = field(default_factory=dict)
    cache: str = "home"
    script: Version | None = None
    exec: Version | None = None


# Tags from .github/workflows/build.yaml of the release tags, entrypoints and caches from the Dockerfiles there; devices
# from docs/source/installation_*.md and docs/source/backends.
VARIANTS: Mapping[str, Variant] = {
    "cuda": Variant(Hardware(accelerator="nvidia", read_only=True), script=(2, 0, 0), exec=(2, 4, 0)),
    # The same image without a GPU: slow, and only some models serve more than one request at once.
    "cpu": Variant(Hardware(read_only=True), script=(2, 0, 0), exec=(2, 4, 0)),
    "rocm": Variant(
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
        since=(1, 2, 0),
        script=(2, 0, 4),
        exec=(2, 4, 0),
    ),
    "intel-xpu": Variant(
        Hardware(
            "-intel-xpu",
            "devices",
            devices=("/dev/dri",),
            privileged=True,
            host_ipc=True,
            visible="ZE_AFFINITY_MASK",
            resource="gpu.intel.com/i915",
        ),
        since=(2, 3, 0),
    ),
    # SYS_NICE: a shard binds its memory to one NUMA node, which Docker's own rules keep from it otherwise
    # (server/text_generation_server/models/flash_causal_lm.py:94-121).
    "intel-cpu": Variant(Hardware("-intel-cpu", capabilities=("SYS_NICE",)), since=(2, 3, 0), cache="hub"),
    "gaudi": Variant(
        Hardware(
            "-gaudi",
            "devices",
            runtime="habana",
            capabilities=("SYS_NICE",),
            host_ipc=True,
            visible="HABANA_VISIBLE_DEVICES",
            resource="habana.ai/gaudi",
        ),
        since=(3, 2, 1),
        # Its script looks for `--sharded true` among the arguments, where our options never are.
        sharded={"PT_HPU_ENABLE_LAZY_COLLECTIVES": "1"},
        script=EVER,
    ),
}
IMAGE = "ghcr.io/huggingface/text-generation-inference"


def variant_named(name: str, version: Version, where: str) -> Variant:
    """Raises UsageError for a kind of image that is unknown, or that this release does not have."""
    variant = VARIANTS.get(name)
    if variant is None:
        raise UsageError(
            f"no stack for the image variant {name!r}", where=where, advice=f"Known: {', '.join(VARIANTS)}."
        )
    if version < variant.since:
        raise UsageError(
            f"TGI {version_text(version)} has no image {variant.hardware.suffix}: it came with"
            f" {version_text(variant.since)}",
            where=where,
            advice="Take a newer engine version.",
        )
    return variant


def image_name(version: str, variant: Variant) -> str:
    """`ghcr.io/huggingface/text-generation-inference:3.3.7-rocm`."""
    return f"{IMAGE}:{version.removeprefix('v')}{variant.hardware.suffix}"


def cache_layout(version: Version, variant: Variant) -> str:
    """`home` or `hub` as in Variant; CUDA images before 2.3 keep models as `hub` does."""
    return "hub" if version < (2, 3, 0) else variant.cache


TOKEN_FILE = "/run/secrets/hub-token"  # where a container's script finds it, in releases that need one for it


def token_places(version: Version, variant: Variant, *, own_image: bool = False) -> tuple[str, ...]:
    """Where in a container the file with the Hub token is put.

    Python's huggingface_hub reads $HF_HOME/token, by default ~/.cache/huggingface/token. The Rust crate hf-hub reads
    the same from TGI 3.2.1 on (`ApiBuilder::from_env`). own_image: of a user's, whose HF_HOME nobody here knows.
    Before 3.2.1 the router drops or misses the file's token: see `token_variable`.
    """
    if version < _TOKEN_FILE_SINCE:
        return (TOKEN_FILE,)
    home, hub = "/data/token", "/root/.cache/huggingface/token"
    if own_image:
        return home, hub
    return (hub,) if cache_layout(version, variant) == "hub" else (home,)


_TOKEN_FILE_SINCE: Version = (3, 2, 1)


def token_variable(version: Version) -> str:
    """The environment variable by which every part of this release takes a Hub token (router/src, launcher/src)."""
    return "HF_TOKEN" if version >= (2, 1, 0) else "HUGGING_FACE_HUB_TOKEN"


def entrypoint(version: Version, variant: Variant, *, token: bool) -> tuple[str, ...]:
    """What a container starts with instead of the image's own; empty where that does.

    Two things are mended: the router of releases before 3.2.1 takes a Hub token from its environment alone (`token`:
    there is one), and the script of some images keeps the signals that end the container from the launcher, so that
    open requests would be cut off.
    """
    deaf = variant.script is not None and version >= variant.script and (variant.exec is None or version < variant.exec)
    exported = token and version < _TOKEN_FILE_SINCE
    if not deaf and not exported:
        return ()
    with_script = variant.script is not None and version >= variant.script and not deaf
    start = "exec /tgi-entrypoint.sh" if with_script else "ldconfig 2>/dev/null; exec text-generation-launcher"
    export = f'export {token_variable(version)}="$(cat {TOKEN_FILE})"; ' if exported else ""
    return ("bash", "-c", export + start)


def container_of(model: Model, version: Version, *, with_token: bool) -> Container:
    """How the image is run. Raises UsageError for a variant that there is none of."""
    variant = variant_named(model.engine.variant, version, model.name)
    places = token_places(version, variant, own_image=model.engine.image is not None) if with_token else ()
    return Container(
        image=model.engine.image or image_name(model.engine.version, variant),
        hardware=variant.hardware,
        cache_volume=f"harness-models-{cache_layout(version, variant)}",
        cache_target="/data",
        entrypoint=entrypoint(version, variant, token=bool(places)),
        plain_entrypoint=entrypoint(version, variant, token=False),
        token_places=places,
        token_variable=token_variable(version),
        shared_memory="1gb" if model.gpus > 1 else None,  # shards talk through /dev/shm (NCCL); one does not
    )
