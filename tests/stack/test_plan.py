"""Models and a machine become a stack: placement, ports, options; nothing is started or asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.catalog.models import EngineChoice, Limits, Model
from harness.errors import MissingError, UsageError
from harness.stack.plan import Machine, plan_stack

SMALL = Model("small", "Qwen/Qwen2.5-0.5B-Instruct", gpu="L4")
LARGE = Model("large", "meta-llama/Llama-3.3-70B-Instruct", gpu="H100", gpus=4)
EIGHT = Machine(gpus=tuple("01234567"))


def test_models_get_gpus_of_their_own() -> None:
    """By id, one model after another; and each is told its number of shards."""
    plan = plan_stack([SMALL, LARGE, replace(SMALL, name="other")], project="p", machine=EIGHT)
    assert [service.devices for service in plan.services] == [("0",), ("1", "2", "3", "4"), ("5",)]
    assert [service.environment["NUM_SHARD"] for service in plan.services] == ["1", "4", "1"]


def test_replicas_are_services_with_own_gpu_and_port() -> None:
    """Two replicas of a model on two GPUs each use four of them and two ports."""
    plan = plan_stack([replace(LARGE, gpus=2, replicas=2, port=9100)], project="p", machine=EIGHT)
    assert [service.name for service in plan.services] == ["large-1", "large-2"]
    assert [service.devices for service in plan.services] == [("0", "1"), ("2", "3")]
    assert [service.host_port for service in plan.services] == [9100, 9101]


def test_too_few_gpus_are_told() -> None:
    """What is missing is a machine's lack: exit code 3, with the numbers."""
    with pytest.raises(MissingError, match="needs 4 GPUs, 3 left") as lack:
        plan_stack([SMALL, LARGE], project="p", machine=Machine(gpus=tuple("0123")))
    assert (lack.value.exit_code, lack.value.where) == (3, "large")


def test_unknown_machine_is_counted_from_zero() -> None:
    """On a laptop a stack is rendered for another machine."""
    plan = plan_stack([SMALL, LARGE], project="p")
    assert [service.devices for service in plan.services] == [("0",), ("1", "2", "3", "4")]


def test_emulated_stack_differs_in_image_and_gpu_alone() -> None:
    """Same name, port, volume, and environment but for the GPU that the emulator is to play."""
    model = replace(SMALL, limits=Limits(max_total_tokens=2000))
    (real,) = plan_stack([model], project="p", machine=EIGHT).services
    (played,) = plan_stack([model], project="p", machine=EIGHT, emulator_image="emulator:1").services
    assert played.image == "emulator:1"
    assert played.devices == ()
    assert played.environment == {**real.environment, "HARNESS_EMULATOR_GPU": "L4"}
    for name in ("name", "host_port", "args", "start_period", "shards"):
        assert getattr(played, name) == getattr(real, name)
    assert replace(played.container, image=real.image) == real.container


def test_ports_asked_for_are_kept_and_others_given() -> None:
    """Nobody gets a port that another asked for."""
    models = [SMALL, replace(SMALL, name="asks", port=8080), replace(SMALL, name="third")]
    ports = [service.host_port for service in plan_stack(models, project="p").services]
    assert ports == [8081, 8080, 8082]


def test_same_port_twice_is_refused() -> None:
    """Before Docker finds out."""
    with pytest.raises(UsageError, match="both want port 9001"):
        plan_stack([replace(SMALL, port=9000, replicas=2), replace(SMALL, name="b", port=9001)], project="p")


def test_local_directory_is_mounted(tmp_path: object) -> None:
    """A model that lies on this host is handed in read-only, under a name that no path can spoil."""
    (service,) = plan_stack([replace(SMALL, name="mine", repo="/data/we ird: $models")], project="p").services
    assert [(each.source, each.target) for each in service.mounts] == [("/data/we ird: $models", "/models/mine")]
    assert service.environment["MODEL_ID"] == "/models/mine"


def test_cache_layouts_do_not_share_a_volume() -> None:
    """TGI 2.2 and 2.3 keep models in different places: one volume for both would download them twice."""
    new, old = (
        plan_stack([replace(SMALL, engine=EngineChoice(version=version))], project="p")
        .services[0]
        .container.cache_volume
        for version in ("3.3.7", "2.2.0")
    )
    assert new != old


def test_cpu_image_takes_no_gpu() -> None:
    """The variant decides what is reserved."""
    model = replace(SMALL, engine=EngineChoice(variant="intel-cpu"))
    assert plan_stack([model], project="p", machine=Machine(gpus=())).services[0].devices == ()


def test_api_key_is_not_rendered() -> None:
    """It would stand in the file, in `docker inspect`, and in TGI's own log."""
    with pytest.raises(UsageError, match="API_KEY"):
        plan_stack([replace(SMALL, env={"API_KEY": "x"})], project="p")


def test_names_that_are_one_to_docker_are_refused() -> None:
    """Two entries whose names differ only in what Compose does not know."""
    with pytest.raises(UsageError, match="one name"):
        plan_stack([replace(SMALL, name="a b"), replace(SMALL, name="a/b")], project="p")


def test_digest_follows_the_entry_not_the_machine() -> None:
    """Another GPU id or free port renews nothing; another option does."""
    (one,) = plan_stack([SMALL], project="p", machine=Machine(gpus=("0",), ports=(8080,))).services
    (moved,) = plan_stack([SMALL], project="q", machine=Machine(gpus=("3",), ports=(9999,))).services
    (changed,) = plan_stack([replace(SMALL, dtype="float16")], project="p").services
    (resolved,) = plan_stack([SMALL], project="p", changes={"small": {"REVISION": "abc"}}).services
    assert resolved.environment["REVISION"] == "abc"
    assert one.digest == moved.digest == resolved.digest != changed.digest
