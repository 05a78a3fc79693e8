"""StackPlan + compose/service.yaml -> a document for `docker compose`. Pure but for reading the template.

`$` is doubled, because Compose would put variables of the environment in.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml

from harness.redaction import arguments_without_secrets, without_secrets
from harness.stack.document import LABEL, compose_file, escaped, to_yaml
from harness.stack.plan import CONTAINER_PORT, ServicePlan, StackPlan
from harness.stack.sidecar import compose_body, compose_configs, named_volumes

SECRET = "hub-token"


def to_compose(plan: StackPlan) -> str:
    """A document for `docker compose`."""
    return to_yaml(escaped(compose_document(plan)))


def compose_document(plan: StackPlan) -> dict[str, Any]:
    """The same as values, `$` not doubled."""
    template = yaml.safe_load(compose_file("service.yaml"))
    caches = sorted({each.container.cache_volume for each in plan.services})
    document: dict[str, Any] = {
        "name": plan.project,
        "services": {service.name: compose_service(service, template, plan) for service in plan.services}
        | {each.name: compose_body(each, plan.project) for each in plan.sidecars},
        # One cache for all stacks of this host; what a sidecar keeps is the project's own.
        "volumes": {name: {"name": name} for name in caches} | {name: {} for name in named_volumes(plan.sidecars)},
    }
    if configs := compose_configs(plan.sidecars):
        document["configs"] = configs
    if plan.token_file and any(service.container.token_places for service in plan.services):
        document["secrets"] = {SECRET: {"file": plan.token_file}}
    return document


def compose_service(service: ServicePlan, template: Mapping[str, Any], plan: StackPlan) -> dict[str, Any]:
    """One service: what the plan says, then what all services share."""
    own: dict[str, Any] = {
        "image": service.image,
        "environment": dict(sorted({**_visible(service), **without_secrets(service.environment)}.items())),
        "ports": [{"target": CONTAINER_PORT, "published": str(service.host_port), "host_ip": service.listen}],
        "volumes": _volumes(service),
        "labels": labels(service, plan.project),
    }
    if service.container.entrypoint:
        own["entrypoint"] = list(service.container.entrypoint)
    if service.args:
        own["command"] = list(arguments_without_secrets(service.args))
    if service.container.token_places:
        own["secrets"] = [{"source": SECRET, "target": place} for place in service.container.token_places]
    shared = _shared(service, template)
    return {**own, **accelerator(service), **_shared_memory(service), **shared}


def secret_services(plan: StackPlan) -> dict[str, Any]:
    """What the document shows as [REDACTED], by service, as a document to be laid over it; `$` doubled."""
    hidden: dict[str, Any] = {}
    for service in plan.services:
        environment = {
            name: service.environment[name]
            for name, shown in without_secrets(service.environment).items()
            if shown != service.environment[name]
        }
        own: dict[str, Any] = {"environment": environment} if environment else {}
        if tuple(service.args) != arguments_without_secrets(service.args):
            own["command"] = list(service.args)
        if own:
            hidden[service.name] = escaped(own)
    return hidden


def labels(service: ServicePlan, project: str) -> dict[str, str]:
    """By which everything of ours is found again."""
    facts = {
        "project": project,
        "model": service.model,
        "repo": service.repo,
        "engine-version": service.engine_version,
        "gpu": service.gpu or "",
        "emulated": "true" if service.emulated else "false",
        "digest": service.digest,
    }
    return {f"{LABEL}{name}": value for name, value in facts.items()}


def accelerator(service: ServicePlan) -> dict[str, Any]:
    """What hands the GPU in; nothing for the emulator, which is the only difference to the real stack beside the
    image.
    """
    variant = service.hardware
    if service.emulated:
        return {}
    if variant.accelerator == "nvidia":
        reservation = {"driver": "nvidia", "device_ids": list(service.devices), "capabilities": ["gpu"]}
        return {"deploy": {"resources": {"reservations": {"devices": [reservation]}}}}
    given: dict[str, Any] = {
        "devices": [f"{path}:{path}" for path in variant.devices],
        "group_add": list(variant.groups),
        "runtime": variant.runtime,
        "privileged": variant.privileged or None,
        "ipc": "host" if variant.host_ipc else None,
    }
    return {key: value for key, value in given.items() if value}


def _visible(service: ServicePlan) -> dict[str, str]:
    """Leaves this service's devices to it, where they are handed in all together."""
    name = service.hardware.visible
    return {name: ",".join(service.devices)} if name and service.devices else {}


def _volumes(service: ServicePlan) -> list[dict[str, Any]]:
    cache = {"type": "volume", "source": service.container.cache_volume, "target": service.container.cache_target}
    binds = [{"type": "bind", "source": m.source, "target": m.target, "read_only": True} for m in service.mounts]
    return [cache, *binds]


def _shared_memory(service: ServicePlan) -> dict[str, str]:
    """Of the engine's own size; the host's own needs none."""
    size = service.container.shared_memory
    return {"shm_size": size} if size is not None and not service.hardware.host_ipc else {}


def _shared(service: ServicePlan, template: Mapping[str, Any]) -> dict[str, Any]:
    shared = deepcopy(dict(template))
    shared.setdefault("healthcheck", {})["start_period"] = f"{service.start_period:.0f}s"
    if service.drain is not None:  # the entry's own time to drain, and ten seconds for what follows
        shared["stop_grace_period"] = f"{service.drain + 10}s"
    if not service.hardware.read_only:
        shared["read_only"] = False
        shared.pop("tmpfs", None)
    # The token's file belongs to the user and is of mode 0600, as a model's directory may be: root in the container
    # reads them only with this power.
    users_files = service.container.token_places or service.mounts
    added = [*service.hardware.capabilities, *(["DAC_OVERRIDE"] if users_files else [])]
    if added:
        shared["cap_add"] = added
    if service.hardware.privileged:
        for key in ("cap_drop", "cap_add", "security_opt"):
            shared.pop(key, None)
    elif service.hardware.security:
        shared["security_opt"] = [*shared.get("security_opt", []), *service.hardware.security]
    return shared
