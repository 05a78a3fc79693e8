"""Every render target: whole documents as golden files, held against the schemas of those who read them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog.models import EngineChoice, Model
from harness.errors import UsageError
from harness.serve.sidecars import plan_sidecars, wanted
from harness.stack.plan import Machine, StackPlan, plan_stack
from harness.stack.render import RENDERERS, files, render, renderer
from harness.stack.render_kubernetes import kubernetes_name
from harness.stack.render_swarm import swarm_name, to_swarm
from tests.goldens import check_golden
from tests.stack.test_render import EIGHT, HOSTILE, LLAMA, QWEN, STACKS, TINY

BOTH = wanted(gateway=True, monitoring=True)
OLDEST_CLUSTER, NEWEST_CLUSTER = "1.25", "1.33"


def with_sidecars(target: str) -> StackPlan:
    plan = plan_stack([QWEN, replace(TINY, replicas=2)], project="harness", machine=EIGHT)
    return plan_sidecars(BOTH, plan, renderer(target).host)


def documents(plan: StackPlan) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render(plan, "kubernetes")))


def of_kind(plan: StackPlan, kind: str) -> list[dict[str, Any]]:
    return [each for each in documents(plan) if each["kind"] == kind]


SWARM = ("one-model", "several-models", "emulated", "version-2.0", "local-directory", "intel-cpu")
KUBERNETES = ("one-model", "several-models", "emulated", "rocm", "gaudi", "version-2.3", "local-directory")


@pytest.mark.parametrize("name", SWARM)
def test_golden_swarm(name: str) -> None:
    """The whole document is what it was."""
    check_golden(f"stacks/swarm/{name}.yaml", render(STACKS[name], "swarm"))


@pytest.mark.parametrize("name", KUBERNETES)
def test_golden_kubernetes(name: str) -> None:
    """The whole document is what it was."""
    check_golden(f"stacks/kubernetes/{name}.yaml", render(STACKS[name], "kubernetes"))


@pytest.mark.parametrize("target", RENDERERS)
def test_golden_with_sidecars(target: str) -> None:
    """Gateway and monitoring beside two models, and the files that they read."""
    plan = with_sidecars(target)
    check_golden(f"stacks/sidecars/{renderer(target).file}", render(plan, target))
    for file in files(plan, target):
        if file.name.startswith(("gateway", "prometheus", "grafana")):
            check_golden(f"stacks/sidecars/{target}-{file.name}", file.text)


# ---- Swarm


@pytest.mark.docker
@pytest.mark.parametrize("name", [*SWARM, "sidecars"])
def test_swarm_accepts(name: str, tmp_path: Path) -> None:
    """`docker stack config` knows every word of it and leaves none out."""
    plan = with_sidecars("swarm") if name == "sidecars" else STACKS[name]
    for file in files(plan, "swarm"):
        (tmp_path / file.name).write_text(file.text, encoding="utf-8")
    path = tmp_path / "stack.yaml"
    path.write_text(render(plan, "swarm"), encoding="utf-8")
    checked = subprocess.run(["docker", "stack", "config", "-c", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "unsupported" not in checked.stderr.lower()
    assert set(yaml.safe_load(checked.stdout)["services"]) == set(yaml.safe_load(path.read_text())["services"])


def test_swarm_publishes_on_the_node_itself() -> None:
    """No virtual address and no routing mesh, which would show the port on every node."""
    for service in yaml.safe_load(render(STACKS["several-models"], "swarm"))["services"].values():
        assert [port["mode"] for port in service["ports"]] == ["host"]
        assert service["deploy"]["endpoint_mode"] == "dnsrr"


def test_swarm_secret_changes_its_name_with_its_value() -> None:
    """Swarm's secrets cannot be changed, and the document holds a place and no value."""
    names = {
        yaml.safe_load(to_swarm(STACKS["one-model"], version)).get("secrets", {}).get("hub-token", {}).get("name")
        for version in ("a1", "b2")
    }
    assert names == {None}
    plan = STACKS["several-models"]
    names = {yaml.safe_load(to_swarm(plan, version))["secrets"]["hub-token"]["name"] for version in ("a1", "b2")}
    assert names == {"harness-hub-token-a1", "harness-hub-token-b2"}


@pytest.mark.parametrize("variant", ["rocm", "gaudi", "intel-xpu"])
def test_swarm_refuses_what_it_cannot_hand_in(variant: str) -> None:
    """Rather than a service that starts without its GPU."""
    with pytest.raises(UsageError, match="device"):
        render(STACKS[variant], "swarm")


@given(name=HOSTILE, value=HOSTILE.filter(lambda text: "\x00" not in text))
def test_no_name_changes_a_swarm_document(name: str, value: str) -> None:
    """One service, in a name that Swarm takes, with exactly this value."""
    document = yaml.safe_load(render(plan_stack([Model(name, "a/b", env={"NOTE": value})], project="p"), "swarm"))
    ((service, body),) = document["services"].items()
    assert service.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    assert body["environment"]["NOTE"] == value.replace("$", "$$")


def test_two_names_that_are_one_to_swarm_are_refused() -> None:
    """`a.b` and `a-b` differ for Compose alone."""
    plan = plan_stack([Model("a.b", "x/y"), Model("a-b", "x/y")], project="p")
    with pytest.raises(UsageError, match="one name to Swarm"):
        render(plan, "swarm")
    with pytest.raises(UsageError, match="one name to Kubernetes"):
        render(plan, "kubernetes")
    assert swarm_name("qwen2.5-7b") == "qwen2-5-7b"


# ---- Kubernetes


@pytest.mark.parametrize("version", [OLDEST_CLUSTER, NEWEST_CLUSTER])
@pytest.mark.parametrize("name", [*KUBERNETES, "sidecars"])
def test_kubernetes_schema(name: str, version: str) -> None:
    """Every object of Kubernetes' own is valid, with no unknown field, by its published schemas."""
    plan = with_sidecars("kubernetes") if name == "sidecars" else STACKS[name]
    checked = 0
    for document in documents(plan):
        if not document["apiVersion"].startswith("monitoring.coreos.com"):
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 4


def test_kubernetes_schema_finds_mistakes() -> None:
    """The check above can fail."""
    (deployment,) = of_kind(STACKS["one-model"], "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST_CLUSTER, strict=True)


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_objects_fit_together(name: str) -> None:
    """Services select pods, mounts have volumes, claims are there, scalers find their deployment."""
    claims = {each["metadata"]["name"] for each in of_kind(STACKS[name], "PersistentVolumeClaim")}
    deployments = {each["metadata"]["name"]: each for each in of_kind(STACKS[name], "Deployment")}
    for deployment in deployments.values():
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        volumes = {each["name"]: each for each in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] in claims
        assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert template["spec"]["terminationGracePeriodSeconds"] > 90
        assert template["spec"]["enableServiceLinks"] is False
        assert "value" not in next(each for each in container["env"] if each["name"] == "HF_TOKEN")
    for service in of_kind(STACKS[name], "Service"):
        labels = deployments[service["metadata"]["name"]]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
    for scaler in of_kind(STACKS[name], "HorizontalPodAutoscaler"):
        assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
        (metric,) = scaler["spec"]["metrics"]
        assert metric["pods"]["metric"]["name"] == "tgi_queue_size"


def test_kubernetes_gpus_and_replicas() -> None:
    """One deployment per model; each pod gets as many GPUs as it has shards."""
    found = {each["metadata"]["name"]: each["spec"] for each in of_kind(STACKS["several-models"], "Deployment")}
    assert not any("replicas" in spec for spec in found.values())
    scalers = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(STACKS["several-models"], "HorizontalPodAutoscaler")
    }
    assert {name: spec["minReplicas"] for name, spec in scalers.items()} == {
        "qwen2-5-7b": 1,
        "llama-3-3-70b": 1,
        "tiny": 2,
    }
    limits = {name: spec["template"]["spec"]["containers"][0]["resources"]["limits"] for name, spec in found.items()}
    assert limits["llama-3-3-70b"] == {"nvidia.com/gpu": "4"}
    assert limits["tiny"] == {"nvidia.com/gpu": "1"}
    (emulated, _) = of_kind(STACKS["emulated"], "Deployment")
    assert "limits" not in emulated["spec"]["template"]["spec"]["containers"][0]["resources"]


def test_kubernetes_claim_holds_the_models() -> None:
    """A tenth more than the files where their size is known, and room to spare where it is not."""
    known = plan_stack([replace(QWEN, weight_bytes=15 * 2**30)], project="p")
    (claim,) = of_kind(known, "PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"] == "27Gi"
    unknown = plan_stack([replace(QWEN, weight_bytes=15 * 2**30), TINY], project="p")
    (claim,) = of_kind(unknown, "PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"


@given(name=HOSTILE, value=HOSTILE.filter(lambda text: "\x00" not in text))
def test_no_name_changes_a_kubernetes_document(name: str, value: str) -> None:
    """The same four objects under names that every kind takes, with exactly this value."""
    plan = plan_stack([Model(name, "/models/" + name, env={"NOTE": value})], project="p")
    found = documents(plan)
    assert [each["kind"] for each in found] == [
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
    ]
    for each in found[1:]:
        assert each["metadata"]["name"][0].isalpha()
        assert each["metadata"]["name"].strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    environment = found[1]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "NOTE", "value": value.replace("$", "$$")} in environment
    assert found[1]["spec"]["template"]["metadata"]["annotations"]["harness/model"] == name


@given(st.text(max_size=60))
def test_kubernetes_names(text: str) -> None:
    """A DNS label that begins with a letter, whatever comes in."""
    name = kubernetes_name(text)
    assert name[0].isascii() and name[0].isalpha()  # noqa: PT018 - one statement about one character
    assert not name.endswith("-")


def test_whole_cluster_may_have_gpus_that_this_machine_lacks() -> None:
    """A plan for elsewhere does not count this machine's."""
    plan = plan_stack([LLAMA], project="p", machine=Machine(gpus=None))
    assert len(yaml.safe_load(render(plan, "swarm"))["services"]) == 1


def test_image_of_ones_own_keeps_its_variant() -> None:
    """An AMD image of a user's own asks for AMD's resource."""
    engine = EngineChoice(image="registry.example/tgi:mine", variant="rocm")
    (deployment,) = of_kind(plan_stack([replace(QWEN, engine=engine)], project="p"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["resources"]["limits"]) == ("registry.example/tgi:mine", {"amd.com/gpu": "1"})
