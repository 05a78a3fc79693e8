"""The gateway's list of models: who is asked for which name, and that nothing else is in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.stack.gateway import CONTAINER_FILE, Route, config_text, gateway
from harness.stack.sidecar import compose_body


def models(routes: list[Route]) -> list[tuple[str, str]]:
    entries = yaml.safe_load(config_text(routes))["model_list"]
    return [(each["model_name"], each["litellm_params"]["api_base"]) for each in entries]


def test_each_name_leads_to_its_service() -> None:
    """By the service's name on the stack's own network, in an order that does not depend on the call's."""
    routes = [Route("two", "two"), Route("one", "one")]
    assert models(routes) == [("one", "http://one:8080/v1"), ("two", "http://two:8080/v1")]
    assert config_text(routes) == config_text(routes[::-1])


def test_replicas_share_a_name() -> None:
    """The proxy spreads requests over all services of one name."""
    found = models([Route("tiny", "tiny-2"), Route("tiny", "tiny-1"), Route("tiny", "tiny-1")])
    assert found == [("tiny", "http://tiny-1:8080/v1"), ("tiny", "http://tiny-2:8080/v1")]


def test_refusals_reach_the_client_as_they_are() -> None:
    """No second attempt and no pause after a failure: either would hide what the engine said."""
    settings = yaml.safe_load(config_text([Route("one", "one")]))
    assert settings["router_settings"]["num_retries"] == 0
    assert settings["router_settings"]["disable_cooldowns"] is True
    assert settings["litellm_settings"]["num_retries"] == 0


@pytest.mark.parametrize("name", ["*", "llama-*", "os.environ/HOME"])
def test_patterns_are_refused(name: str) -> None:
    """A name that the proxy would match against others, or fill in from its environment."""
    with pytest.raises(UsageError, match="pattern"):
        config_text([Route(name, "one")])


@given(st.text(min_size=1, max_size=40))
def test_any_other_name_arrives_as_it_is(name: str) -> None:
    """Whatever a model is called, the list has one entry of exactly that name."""
    assume("*" not in name and not name.startswith("os.environ/"))
    assert models([Route(name, "one")]) == [(name, "http://one:8080/v1")]


def test_container_is_kept_in() -> None:
    """Read-only, without powers, on this host alone, and with the list as its only file."""
    sidecar = gateway([Route("one", "one")], host_port=4321)
    body = compose_body(sidecar, "project")
    assert body["ports"] == [{"target": 4000, "published": "4321", "host_ip": "127.0.0.1"}]
    assert (body["read_only"], body["cap_drop"]) == (True, ["ALL"])
    assert body["configs"] == [{"source": "gateway.yaml", "target": CONTAINER_FILE}]
    assert body["labels"]["harness.project"] == "project"
    assert sidecar.engine_version is not None
    assert f"litellm[proxy]=={sidecar.engine_version}" in dockerfile()


def dockerfile() -> str:
    from harness.stack.document import compose_file

    return compose_file("gateway.Dockerfile")


def test_file_of_ones_own_shows_it_to_others() -> None:
    """Its address is taken from there, and the word for it is not Compose's."""
    plain = gateway([Route("a", "a")])
    shown = replace(plain, body={**plain.body, "x-listen": "0.0.0.0"})
    body = compose_body(shown, "project")
    assert body["ports"][0]["host_ip"] == "0.0.0.0"
    assert "x-listen" not in body
    assert shown.digest != plain.digest


def test_another_list_is_another_gateway() -> None:
    """By the digest it is seen that it must be started anew; the port on the host does not count."""
    one, two = Route("one", "one"), Route("two", "two")
    assert gateway([one]).digest == gateway([one], host_port=4001).digest
    assert gateway([one]).digest != gateway([one, two]).digest


def test_template_without_it_is_named(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A compose/gateway.yaml of a user's own that lacks the service."""
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "gateway.yaml").write_text("proxy: {image: x}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"compose/gateway\.yaml has no `gateway`"):
        gateway([Route("one", "one")])
