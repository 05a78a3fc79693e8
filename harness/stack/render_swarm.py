"""StackPlan -> a document for `docker stack deploy`: the Compose stack, in the words that Swarm has for it.

What differs, and why:

- A port is published by the node that runs the container (mode `host`), on all of its addresses: Swarm has no word for
  127.0.0.1. The header of the file says how a node is told to.
- Secrets and configurations are Swarm's own objects and can never change: their names end in a hash of what they hold.
- A tmpfs cannot be told to allow execution, and TGI loads kernels from where it compiled them: its root file system
  stays writable. Sidecars keep theirs read-only.
- GPUs are counted as generic resources: the scheduler knows how many a node has, the node's runtime hands them in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError
from harness.stack.document import escaped, to_yaml
from harness.stack.plan import ServicePlan, StackPlan
from harness.stack.render_compose import compose_document, secret_services
from harness.stack.sidecar import Sidecar, stack_files

FORMAT = "3.8"  # the newest that Docker Engine 20.10 reads
GPU_RESOURCE = "NVIDIA-GPU"  # the kind under which nodes announce their GPUs

SUFFIX = "-swarm"  # of the project: a Compose stack of the same name would want the same network
BRIDGE = "docker_gwbridge"  # through which a node publishes ports
BINDING = "com.docker.network.bridge.host_binding_ipv4"
MAKE_LOOPBACK_BRIDGE = (
    f"docker network create -o {BINDING}=127.0.0.1 -o com.docker.network.bridge.enable_icc=false"
    f" -o com.docker.network.bridge.name={BRIDGE} {BRIDGE}"
)

# Compose's words that `docker stack deploy` leaves out with a warning.
_UNKNOWN = ("security_opt", "restart", "shm_size", "tmpfs", "devices", "group_add", "runtime", "privileged", "ipc")

HEADER = f"""\
# For `docker stack deploy --compose-file stack.yaml NAME`.
#
# Ports are open on every address of the node that runs the container; on 127.0.0.1 alone where the node's bridge was
# made so before the node joined:
#   {MAKE_LOOPBACK_BRIDGE}
# Nodes with GPUs announce them in /etc/docker/daemon.json:
#   "default-runtime": "nvidia", "node-generic-resources": ["{GPU_RESOURCE}=GPU-<uuid>"]
# and hand them in by /etc/nvidia-container-runtime/config.toml:
#   swarm-resource = "DOCKER_RESOURCE_{GPU_RESOURCE}"
"""


def to_swarm(plan: StackPlan, secret_version: str = "") -> str:
    """A document for `docker stack deploy`. secret_version: changes when the token does.

    Raises UsageError for what a Swarm service cannot be given.
    """
    return HEADER + to_yaml(escaped(swarm_document(plan, secret_version)))


def swarm_secret_services(plan: StackPlan) -> dict[str, Any]:
    """What the document shows as [REDACTED], as a document to be laid over it."""
    return {
        swarm_name(name): {**body, **({"environment": _literal(body["environment"])} if "environment" in body else {})}
        for name, body in secret_services(plan).items()
    }


def _literal(environment: Mapping[str, str]) -> dict[str, str]:
    """Swarm reads values as Go templates, in which `{{.Node.Hostname}}` is the node's name: `{{` is written as the
    template of those two characters.
    """
    return {name: value.replace("{{", '{{"{{"}}') for name, value in environment.items()}


def swarm_name(name: str) -> str:
    """A service's name as Swarm takes it: one part of a DNS name. `qwen2.5-7b` -> `qwen2-5-7b`."""
    return re.sub(r"[^a-z0-9-]", "-", name).strip("-") or "model"


def swarm_document(plan: StackPlan, secret_version: str = "") -> dict[str, Any]:
    _require_distinct(plan)
    document = compose_document(plan)
    services = {
        swarm_name(each.name): _service(each, document["services"][each.name], plan.project) for each in plan.containers
    }
    secrets = {
        name: {"name": _versioned(f"{plan.project}-{name}", secret_version), **secret}
        for name, secret in document.get("secrets", {}).items()
    }
    configs = {
        each.name: {"name": _versioned(f"{plan.project}-{each.name}", _hash(each.text)), "file": f"./{each.name}"}
        for each in stack_files(plan.sidecars)
    }
    whole = {
        "version": FORMAT,
        "services": services,
        "volumes": document["volumes"],
        "configs": configs,
        "secrets": secrets,
    }
    return {key: value for key, value in whole.items() if value}


def _require_distinct(plan: StackPlan) -> None:
    seen: dict[str, str] = {}
    for each in plan.containers:
        name = swarm_name(each.name)
        if name in seen:
            raise UsageError(
                f"{seen[name]} and {each.name} are one name to Swarm: {name}", advice="Rename one of them."
            )
        seen[name] = each.name


def _service(plan: ServicePlan | Sidecar, body: Mapping[str, Any], project: str) -> dict[str, Any]:
    service = {key: value for key, value in body.items() if key not in _UNKNOWN}
    service["ports"] = [
        {"target": int(port["target"]), "published": int(port["published"]), "mode": "host"} for port in body["ports"]
    ]
    service["deploy"] = _deploy(plan, body)
    if "environment" in body:
        service["environment"] = _literal(body["environment"])
    mounts = [_mount(each) for each in body.get("volumes", [])]
    if isinstance(plan, Sidecar):
        mounts += [_memory(each.partition(":")[0]) for each in body.get("tmpfs", [])]
    else:
        _require_possible(plan)
        service["read_only"] = False
        if "shm_size" in body:
            mounts.append(_memory("/dev/shm", _bytes(body["shm_size"])))
    if mounts:
        service["volumes"] = mounts
    if "secrets" in body:
        service["secrets"] = [{**each, "mode": 0o400} for each in body["secrets"]]
    if not getattr(plan, "mounts", ()):  # the token's file is root's own here, a model's directory is not
        service["cap_add"] = [each for each in body.get("cap_add", []) if each != "DAC_OVERRIDE"]
    return {key: value for key, value in service.items() if value not in ([], False)}


def _require_possible(service: ServicePlan) -> None:
    variant = service.hardware
    if service.emulated:
        return
    if variant.accelerator == "devices" or variant.privileged or variant.runtime:
        raise UsageError(
            f"Swarm cannot hand a{variant.suffix} device into a container",
            where=service.model,
            advice="Use --runtime compose on that machine, or Kubernetes.",
        )


def _deploy(plan: ServicePlan | Sidecar, body: Mapping[str, Any]) -> dict[str, Any]:
    """One container each, put in place anew when it fails. The old one ends before the new one starts: both would want
    the same GPU and the same port.
    """
    deploy: dict[str, Any] = {
        "replicas": 1,
        # One task needs no virtual address, whose kernel table (IPVS) forgets connections silent for 15 minutes.
        "endpoint_mode": "dnsrr",
        "labels": dict(body["labels"]),
        "restart_policy": {"condition": "on-failure", "delay": "10s"},
        "update_config": {"order": "stop-first", "failure_action": "pause"},
    }
    if plan.devices:
        gpus = {"discrete_resource_spec": {"kind": GPU_RESOURCE, "value": len(plan.devices)}}
        deploy["resources"] = {"reservations": {"generic_resources": [gpus]}}
    return deploy


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    return dict(mount)


def _memory(target: str, size: int | None = None) -> dict[str, Any]:
    """A tmpfs; with the long form alone does Swarm make one."""
    return {"type": "tmpfs", "target": target, **({"tmpfs": {"size": size}} if size else {})}


def _bytes(size: str) -> int:
    """`1gb` as Docker reads it."""
    return int(size.removesuffix("gb")) * 2**30


def _versioned(name: str, version: str) -> str:
    """At most 64 characters, as Swarm's names are; the version is never cut."""
    return f"{name[: 63 - len(version)]}-{version}" if version else name[:64]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
