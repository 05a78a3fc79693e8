"""--gateway and --monitoring as far as they can be judged without starting a container."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.commands.render import render
from harness.commands.up import dry_run_text, up
from harness.errors import UsageError
from harness.serve.sidecars import require_possible
from harness.serve.target import Target
from harness.stack.render import RENDERERS


@pytest.fixture
def targets(tmp_path: Path) -> list[Target]:
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n"
        "  one.5: {repo: a/one, gpu: L4}\n"
        "  two: {repo: a/two, gpu: L4, port: 4000}\n"
        "  grafana: {repo: a/b, gpu: L4}\n",
        encoding="utf-8",
    )
    return [Target(name, emulate=True, catalogue=str(path)) for name in ("one.5", "two")]


def test_processes_of_the_host_are_out_of_their_reach(targets: list[Target]) -> None:
    """A container cannot call 127.0.0.1 of its host: said before anything is started."""
    embedded = [Target(each.model, runtime="embedded", catalogue=each.catalogue) for each in targets]
    with pytest.raises(UsageError, match="--runtime compose"):
        up(embedded, gateway=True)
    with pytest.raises(UsageError, match="--runtime compose"):
        dry_run_text(embedded, monitoring=True)


def test_mixed_runtimes_are_refused() -> None:
    """One address needs one network."""
    with pytest.raises(UsageError, match="one runtime"):
        require_possible(["gateway"], ["compose", "swarm"], [])
    require_possible([], ["embedded", "local"], [])


def test_model_with_a_sidecars_name_is_refused(targets: list[Target]) -> None:
    """Both would be one service."""
    named = [Target("grafana", emulate=True, catalogue=targets[0].catalogue)]
    with pytest.raises(UsageError, match="Rename"):
        render(named, monitoring=True)
    assert "grafana" in render(named, gateway=True)


def test_printed_stack_is_one_document(targets: list[Target]) -> None:
    """What lies beside it follows as comments, so that the output can be piped into Compose."""
    text = dry_run_text(targets, gateway=True, monitoring=True)
    document = yaml.safe_load(text)
    assert set(document["services"]) == {"one.5", "two", "gateway", "prometheus", "grafana"}
    assert "# The file gateway.yaml, which lies beside this one:" in text
    assert "#     api_base: http://one.5:8080/v1" in text
    assert document["configs"]["gateway.yaml"] == {"file": "./gateway.yaml"}


def test_sidecar_gives_way_to_a_models_own_port(targets: list[Target]) -> None:
    """`port: 4000` of an entry is the entry's."""
    services = yaml.safe_load(render(targets, gateway=True))["services"]
    assert services["two"]["ports"][0]["published"] == "4000"
    assert services["gateway"]["ports"][0]["published"] == "4001"


@pytest.mark.parametrize("format", RENDERERS)
def test_folder_holds_all_files(targets: list[Target], format: str, tmp_path: Path) -> None:
    """Every file that the main one names, and the names on stdout."""
    written = render(targets, format=format, gateway=True, monitoring=True, output=tmp_path / "out").splitlines()
    assert sorted(written) == sorted(str(path) for path in (tmp_path / "out").iterdir())
    main, *_ = yaml.safe_load_all(Path(written[0]).read_text(encoding="utf-8"))
    for config in main.get("configs", {}).values():
        assert (tmp_path / "out" / config["file"]).is_file()


@pytest.mark.parametrize("format", ["swarm", "kubernetes"])
def test_names_lead_to_services_on_every_target(targets: list[Target], format: str, tmp_path: Path) -> None:
    """Where a dot is not allowed in a host name, the gateway is told the name that the service really has."""
    render(targets, format=format, gateway=True, output=tmp_path)
    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.name != "models.yaml")
    assert "api_base: http://one-5:8080/v1" in text
    assert "model_name: one.5" in text


def test_dry_run_of_a_swarm_is_its_own_document(targets: list[Target]) -> None:
    """With a network of its own name, beside a Compose stack."""
    swarm = [Target(each.model, runtime="swarm", emulate=True, catalogue=each.catalogue) for each in targets]
    document = yaml.safe_load(dry_run_text(swarm))
    assert document["services"]["one-5"]["deploy"]["labels"]["harness.project"].endswith("-swarm")
