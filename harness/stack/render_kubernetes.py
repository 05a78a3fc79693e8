"""StackPlan -> objects for `kubectl apply`: Deployment, Service and autoscaler per model, one claim per model cache.

What differs from the Compose stack, and why:

- Replicas of one model are one Deployment; which node and which GPU they get is the scheduler's to decide.
- The Hub token is the cluster's own Secret, referred to by name and written by nobody here.
- Environment variables for other services of the namespace are turned off (`enableServiceLinks`): a Service called
  `prometheus` would set PROMETHEUS_PORT to an address, which TGI takes for its own option and refuses to start.
- Monitoring is by the cluster's Prometheus Operator and Grafana instead of our own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from harness.engines import engine_named
from harness.engines.base import Engine
from harness.errors import UsageError
from harness.redaction import arguments_without_secrets, without_secrets
from harness.stack.document import Literal, compose_file, escaped, to_yaml
from harness.stack.monitoring import JOB, SCRAPE_INTERVAL
from harness.stack.plan import CONTAINER_PORT, ServicePlan, StackPlan
from harness.stack.sidecar import HEALTH_PATHS, Sidecar
from harness.stack.state import safe_name
from harness.units import GIB

TOKEN_SECRET, TOKEN_KEY = "harness-hub-token", "token"
_AFTER_DRAIN, _BEFORE_DRAIN = 10, 5
_UNKNOWN_WEIGHTS_BYTES = 200 * GIB
_PROBE_PERIOD, _PROBE_TIMEOUT = 10, 60

HEADER = f"""\
# For `kubectl apply --namespace NAMESPACE --filename kubernetes.yaml`. The cluster needs:
# - the device plugin of its GPUs, and a storage class whose volumes several nodes can mount (ReadWriteMany);
# - for gated models the token: `kubectl create secret generic {TOKEN_SECRET} --from-file={TOKEN_KEY}=PATH`;
# - for the autoscalers Prometheus and the Prometheus Adapter, see there.
"""
SCALER_COMMENT = """\
# Scales on QUEUE_METRIC, the requests that wait for a place in a pod's batch. The metric is not a built-in one:
# Prometheus must scrape the pods (they carry the usual annotations), and the Prometheus Adapter must hand it on:
#   rules:
#     custom:
#       - seriesQuery: 'QUEUE_METRIC{namespace!="",pod!=""}'
#         resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
#         name: {as: QUEUE_METRIC}
#         metricsQuery: 'sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})'
# Whether it is there:
#   kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta1/namespaces/NAMESPACE/pods/*/QUEUE_METRIC'
"""
MONITOR_COMMENT = """\
# For the Prometheus Operator (monitoring.coreos.com/v1), and a Grafana whose sidecar reads ConfigMaps of this label.
"""


@dataclass(frozen=True)
class _Model:
    """All replicas of one entry: what they share."""

    name: str
    plan: ServicePlan
    replicas: int

    @property
    def engine(self) -> Engine:
        return engine_named(self.plan.engine)


def to_kubernetes(plan: StackPlan) -> str:
    """YAML documents for `kubectl apply`. Raises UsageError where two models would be one object, and for GPUs that a
    cluster has no one name for.
    """
    models = _models(plan)
    template = yaml.safe_load(compose_file("service.yaml"))
    documents = [
        ("", _claim(volume, models)) for volume in sorted({each.plan.container.cache_volume for each in models})
    ]
    for model in models:
        documents += [
            ("", _deployment(model, template, plan.project)),
            ("", _service(model.name, CONTAINER_PORT, _labels(model, plan.project))),
            (SCALER_COMMENT.replace("QUEUE_METRIC", model.engine.queue_metric), _scaler(model, plan.project)),
        ]
    for sidecar in plan.sidecars:
        if sidecar.engine == "litellm":
            documents += [("", each) for each in _sidecar(sidecar, plan.project)]
    if any(sidecar.engine == "prometheus" for sidecar in plan.sidecars):
        documents += [
            (MONITOR_COMMENT if not index else "", each)
            for index, each in enumerate(_monitors(plan.project, sorted({model.engine.app for model in models})))
        ]
    return (
        HEADER
        + _secrets_comment(models)
        + "".join(f"---\n{comment}{to_yaml(document)}" for comment, document in documents)
    )


def kubernetes_name(name: str) -> str:
    """A name that every kind of object takes: a DNS label that begins with a letter. `qwen2.5-7b` -> `qwen2-5-7b`."""
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "model"
    return plain if plain[0].isalpha() else f"m-{plain}"


def service_host(service: ServicePlan) -> str:
    """The name by which pods of the namespace reach the model."""
    return kubernetes_name(safe_name(service.model))


def _models(plan: StackPlan) -> list[_Model]:
    by_name: dict[str, list[ServicePlan]] = {}
    for service in plan.services:
        by_name.setdefault(service_host(service), []).append(service)
    for name, services in by_name.items():
        if len({service.model for service in services}) > 1:
            both = " and ".join(sorted({service.model for service in services}))
            raise UsageError(f"{both} are one name to Kubernetes: {name}", advice="Rename one of them.")
    return [_Model(name, services[0], len(services)) for name, services in by_name.items()]


# ---- objects


def _object(kind: str, version: str, name: str, labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _labels(model: _Model, project: str) -> dict[str, str]:
    return {
        **_selector(model.engine.app, model.name),
        "app.kubernetes.io/version": _label_value(model.plan.engine_version),
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": project,
        "app.kubernetes.io/managed-by": "harness",
    }


def _selector(program: str, name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": program, "app.kubernetes.io/instance": name}


def _label_value(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


def _claim(volume: str, models: Sequence[_Model]) -> dict[str, Any]:
    """Room for all models of one cache layout: a tenth more than their files, or a guess where nobody said."""
    sizes = [each.plan.weight_bytes for each in models if each.plan.container.cache_volume == volume]
    known = [size for size in sizes if size is not None]
    size = math.ceil(1.1 * sum(known) / GIB) + 10 if len(known) == len(sizes) else _UNKNOWN_WEIGHTS_BYTES // GIB
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": f"{size}Gi"}}}
    labels = {"app.kubernetes.io/managed-by": "harness"}
    return _object("PersistentVolumeClaim", "v1", volume, labels, spec=spec)


def _deployment(model: _Model, template: Mapping[str, Any], project: str) -> dict[str, Any]:
    plan = model.plan
    annotations = {
        "harness/model": plan.model,
        "harness/repo": plan.repo,
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(CONTAINER_PORT),
        "prometheus.io/path": "/metrics",
    }
    spec: dict[str, Any] = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _BEFORE_DRAIN + _drain(model) + _AFTER_DRAIN,
        "securityContext": {"seccompProfile": {"type": _seccomp(plan)}},
        "containers": [_container(model, template)],
        "volumes": _volumes(plan, template),
    }
    if resource := _gpu_resource(plan):
        # Nodes with GPUs are often kept free of other pods by a taint of the same name.
        spec["tolerations"] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
    labels = _labels(model, project)
    return _object(
        "Deployment",
        "apps/v1",
        model.name,
        labels,
        spec={
            # No `replicas`: applying the file again must not undo what the autoscaler decided.
            "selector": {"matchLabels": _selector(model.engine.app, model.name)},
            # The new pod would wait for the old one's GPU for ever where all GPUs are in use.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "progressDeadlineSeconds": int(plan.start_period) + 600,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
        },
    )


def _drain(model: _Model) -> int:
    return model.engine.default_drain if model.plan.drain is None else model.plan.drain


def _seccomp(plan: ServicePlan) -> str:
    return "Unconfined" if any("unconfined" in each for each in plan.hardware.security) else "RuntimeDefault"


def _gpu_resource(plan: ServicePlan) -> str | None:
    """What the pod asks for; None for one that needs no GPU."""
    if plan.emulated or plan.hardware.accelerator == "none":
        return None
    if plan.hardware.resource is None:
        raise UsageError(
            f"which maker's GPU the image variant {plan.hardware.suffix.lstrip('-')} is to get cannot be said to a"
            " cluster",
            where=plan.model,
            advice="Take the variant of the GPU's maker.",
        )
    return plan.hardware.resource


def _container(model: _Model, template: Mapping[str, Any]) -> dict[str, Any]:
    plan = model.plan
    token = {"secretKeyRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY, "optional": True}}
    command, args = plan.container.plain_entrypoint, plan.args
    return {
        "name": plan.engine,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        **({"command": escaped(list(command))} if command else {}),
        **({"args": escaped(list(arguments_without_secrets(args)))} if args else {}),
        "env": [*_environment(plan), {"name": plan.container.token_variable, "valueFrom": token}],
        "ports": [{"name": "http", "containerPort": CONTAINER_PORT}],
        "resources": _resources(plan),
        "volumeMounts": _mounts(plan, template),
        "securityContext": _security(plan),
        # Until every node knows that the pod ends, requests still come; an engine takes none once it drains.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_BEFORE_DRAIN)]}}},
        **_probes(plan.start_period, model.engine.health_path),
    }


def _environment(plan: ServicePlan) -> list[dict[str, Any]]:
    """Secrets are the cluster's own."""
    hidden = {name for name, shown in without_secrets(plan.environment).items() if shown != plan.environment[name]}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": _env_secret(plan), "key": name}}}
        if name in hidden
        else _plain({name: value})[0]
        for name, value in sorted(plan.environment.items())
    ]


def _plain(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """`$` is doubled, because Kubernetes puts other variables in for `$(NAME)`."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in sorted(variables.items())]


def _env_secret(plan: ServicePlan) -> str:
    """Name of the Secret that holds what the entry's `env` has of secrets."""
    return f"{service_host(plan)}-env"


def _secrets_comment(models: Sequence[_Model]) -> str:
    """How the Secrets are made that the document refers to; empty where there are none."""
    lines = []
    for model in models:
        plan = model.plan
        names = [name for name, shown in without_secrets(plan.environment).items() if shown != plan.environment[name]]
        if names:
            literals = " ".join(f"--from-literal={name}=..." for name in sorted(names))
            lines.append(f"# - kubectl create secret generic {_env_secret(plan)} {literals}\n")
    return (
        "".join(["# Values of `env` that are secrets are not written here; make them first:\n", *lines])
        if lines
        else ""
    )


def _resources(plan: ServicePlan) -> dict[str, Any]:
    """One busy process per GPU and the router. Memory is not bounded: while weights load, the page cache counts."""
    resources: dict[str, Any] = {"requests": {"cpu": str(plan.shards + 1)}}
    if resource := _gpu_resource(plan):
        resources["limits"] = {resource: str(plan.shards)}
    return resources


def _security(plan: ServicePlan) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if plan.hardware.capabilities:
        capabilities["add"] = list(plan.hardware.capabilities)
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": plan.hardware.read_only,
        "capabilities": capabilities,
    }


def _probes(start_period: float, path: str) -> dict[str, Any]:
    """/health may compute one token behind whatever runs, and so take as long as the longest prefill."""
    ask = {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": _PROBE_TIMEOUT}
    starts = math.ceil(start_period / _PROBE_PERIOD)
    return {
        "startupProbe": {**ask, "periodSeconds": _PROBE_PERIOD, "failureThreshold": starts},
        "readinessProbe": {**ask, "periodSeconds": _PROBE_PERIOD, "failureThreshold": 3},
        "livenessProbe": {**ask, "periodSeconds": 30, "failureThreshold": 3},
    }


def _writable(plan: ServicePlan, template: Mapping[str, Any]) -> list[str]:
    return [each.partition(":")[0] for each in template.get("tmpfs", [])] if plan.hardware.read_only else []


def _needs_shared_memory(plan: ServicePlan) -> bool:
    return plan.container.shared_memory is not None or plan.hardware.host_ipc


def _shared_memory(plan: ServicePlan) -> str:
    """`1gb` of Docker is `1Gi` of Kubernetes."""
    return (plan.container.shared_memory or "1gb").replace("gb", "Gi").replace("mb", "Mi")


def _volumes(plan: ServicePlan, template: Mapping[str, Any]) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": plan.container.cache_volume}}
    ]
    if _writable(plan, template):
        volumes.append({"name": "scratch", "emptyDir": {}})
    if _needs_shared_memory(plan):
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": _shared_memory(plan)}})
    directories = [{"path": mount.source, "type": "Directory"} for mount in plan.mounts]
    return volumes + [{"name": f"directory-{n}", "hostPath": each} for n, each in enumerate(directories)]


def _mounts(plan: ServicePlan, template: Mapping[str, Any]) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "models", "mountPath": plan.container.cache_target}]
    for path in _writable(plan, template):
        mounts.append({"name": "scratch", "mountPath": path, "subPath": path.strip("/").replace("/", "-")})
    if _needs_shared_memory(plan):
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    for number, mount in enumerate(plan.mounts):
        mounts.append({"name": f"directory-{number}", "mountPath": mount.target, "readOnly": True})
    return mounts


def _service(name: str, port: int, labels: Mapping[str, str]) -> dict[str, Any]:
    selector = {key: labels[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    ports = [{"name": "http", "port": port, "targetPort": "http"}]
    return _object("Service", "v1", name, labels, spec={"type": "ClusterIP", "selector": selector, "ports": ports})


def _scaler(model: _Model, project: str) -> dict[str, Any]:
    """More pods when an eighth of what a pod takes at once waits on average; fewer only after a quiet quarter of an
    hour, because a start costs minutes.
    """
    waiting = max(1, model.plan.concurrent // 8)
    metric = {
        "metric": {"name": model.engine.queue_metric},
        "target": {"type": "AverageValue", "averageValue": str(waiting)},
    }
    one_pod = {"type": "Pods", "value": 1, "periodSeconds": 60}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": model.name},
        "minReplicas": model.replicas,
        "maxReplicas": 2 * model.replicas,
        "metrics": [{"type": "Pods", "pods": metric}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 30, "policies": [one_pod]},
            "scaleDown": {"stabilizationWindowSeconds": 900, "policies": [one_pod]},
        },
    }
    return _object("HorizontalPodAutoscaler", "autoscaling/v2", model.name, _labels(model, project), spec=spec)


# ---- sidecars


def _sidecar(sidecar: Sidecar, project: str) -> list[dict[str, Any]]:
    """ConfigMap, Deployment and Service."""
    labels = {
        **_selector(sidecar.engine, sidecar.name),
        "app.kubernetes.io/part-of": project,
        "app.kubernetes.io/managed-by": "harness",
    }
    files = {each.name: Literal(each.text) for each in sidecar.files}
    writable = [each.partition(":")[0] for each in sidecar.body.get("tmpfs", [])]
    mounts = [{"name": "config", "mountPath": each.target, "subPath": each.name} for each in sidecar.files]
    mounts += [
        {"name": "scratch", "mountPath": path, "subPath": path.strip("/").replace("/", "-")} for path in writable
    ]
    container = {
        "name": sidecar.engine,
        "image": sidecar.image,
        "args": escaped(list(sidecar.body.get("command", []))),
        "env": _plain(sidecar.environment),
        "ports": [{"name": "http", "containerPort": sidecar.port}],
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": {
            "httpGet": {"path": HEALTH_PATHS[sidecar.engine], "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        },
    }
    pod = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": sidecar.name}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    # A changed configuration is a changed pod; a mounted file alone would not be read again.
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    template = {"metadata": {"labels": labels, "annotations": {"harness/config": digest}}, "spec": pod}
    selector = {"matchLabels": _selector(sidecar.engine, sidecar.name)}
    return [
        _object("ConfigMap", "v1", sidecar.name, labels, data=files),
        _object(
            "Deployment",
            "apps/v1",
            sidecar.name,
            labels,
            spec={"replicas": 1, "selector": selector, "template": template},
        ),
        _service(sidecar.name, sidecar.port, labels),
    ]


def _monitors(project: str, apps: Sequence[str]) -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/part-of": project, "app.kubernetes.io/managed-by": "harness"}
    instance = {"sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"], "targetLabel": "model"}
    endpoint = {
        "port": "http",
        "path": "/metrics",
        "interval": SCRAPE_INTERVAL,
        "relabelings": [instance, {"targetLabel": "job", "replacement": JOB}],
    }
    name = "app.kubernetes.io/name"
    several = {"matchExpressions": [{"key": name, "operator": "In", "values": list(apps)}]}
    selector = several if len(apps) > 1 else {"matchLabels": {name: apps[0]}}
    monitor = {"selector": selector, "podMetricsEndpoints": [endpoint]}
    rules = yaml.safe_load(compose_file("alerts.yaml"))
    dashboard = {"tgi.json": Literal(compose_file("dashboard.json"))}
    return [
        _object("PodMonitor", "monitoring.coreos.com/v1", f"{project}-tgi", labels, spec=monitor),
        _object("PrometheusRule", "monitoring.coreos.com/v1", f"{project}-tgi", labels, spec=rules),
        _object("ConfigMap", "v1", f"{project}-dashboard", {**labels, "grafana_dashboard": "1"}, data=dashboard),
    ]
