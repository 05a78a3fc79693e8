"""A look and a load go the same way: whatever lies before a service, both reach it, or both are told why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.engines.identify import endpoint_at, identify
from harness.errors import UsageError
from harness.load import runner
from harness.load.connection import Address
from harness.load.plan import LoadPlan
from harness.load.worker_pool import WorkerPool
from harness.measure.journal import read_journal
from harness.measure.run_folder import Level
from harness.workload.workload import drawn
from tests.load.front import KEY, Front, Standing, standing
from tests.load.odd_server import serving

TLS = Front(certificate=Path("set where it is made"))


@dataclass(frozen=True)
class Way:
    """front: what lies before the service, None for nothing. url: as somebody writes it, `{}` for the front's port.
    environment: what is set for it.
    """

    front: Front | None
    url: str = "http://127.0.0.1:{}"
    environment: tuple[tuple[str, str], ...] = ()


WAYS = {
    "straight": Way(None),
    "a slash at its end": Way(None, "http://127.0.0.1:{}/"),
    "/v1 at its end": Way(None, "http://127.0.0.1:{}/v1"),
    "a base path": Way(Front(base="/team/a"), "http://127.0.0.1:{}/team/a"),
    "a base path and /v1": Way(Front(base="/team/a"), "http://127.0.0.1:{}/team/a/v1/"),
    "moved for good (308)": Way(Front(redirect=308)),
    "moved for now (307)": Way(Front(redirect=307)),
    "moved, with a base path": Way(Front(redirect=302, base="/old"), "http://127.0.0.1:{}/old/v1"),
    "compressed": Way(Front(squeezed=True)),
    "a key": Way(Front(key=True), environment=(("HARNESS_API_KEY", KEY),)),
    "a proxy": Way(Front(proxy=True), "http://service.example", (("HARNESS_PROXY", "http://127.0.0.1:{}"),)),
    "TLS and a base path": Way(replace(TLS, base="/x"), "https://localhost:{}/x/v1", (("SSL_CERT_FILE", "{tls}"),)),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """For the ways that need nothing of the environment, which load processes get when they are started."""
    with WorkerPool(1) as one:
        yield one


@contextmanager
def reached(way: Way, behind: str, tls: Path) -> Iterator[tuple[str, dict[str, str], Standing | None]]:
    """The URL to name, what to set, and the front."""
    with ExitStack() as stack:
        port, known = int(behind.rpartition(":")[2]), None
        if way.front is not None:
            front = replace(way.front, to=behind)
            front = replace(front, certificate=tls) if front.certificate is not None else front
            known = stack.enter_context(standing(front, behind))
            port = known.port
        yield way.url.format(port), {name: text.format(port, tls=tls) for name, text in way.environment}, known


@pytest.mark.parametrize("name", list(WAYS))
def test_a_load_goes_the_way_of_the_look(
    name: str, pool: WorkerPool, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look finds the model, and every request of the load is answered whole by the same service."""
    for variable in ("HARNESS_PROXY", "HARNESS_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    with serving("plain") as server, reached(WAYS[name], server.url, certificate) as (url, variables, front):
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        info, endpoint = identify(endpoint_at(url))
        assert info.model_names == ("m",)
        plan = LoadPlan(
            url=endpoint.url, model_name=endpoint.model_name or "", timeout=20.0, api="openai-chat", stream=True,
            seed=1, folder=str(tmp_path),
            workload=drawn("ways", "16", "8", seed=1).as_dict(), clock_monotonic=time.monotonic(),
        )  # fmt: skip
        levels = [Level(0, users=1, requests=2, warmup=0.0)]
        if variables:
            with WorkerPool(1) as own:
                runner.run(plan, levels, pool=own)
        else:
            runner.run(plan, levels, pool=pool)
        records = read_journal(tmp_path).records
        assert [(each.status, each.error_kind) for each in records] == [("completed", None)] * 2
        assert {each.request_id for each in records} == set(server.truths)
        if front is not None and not (WAYS[name].front or Front()).redirect:
            assert any(each.startswith("POST") for each in front.seen)


def test_a_redirect_elsewhere_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither with the look nor with a load, which is not begun; the new place is named."""
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    with (
        serving("plain") as server,
        standing(Front(key=True), server.url) as wanted,
        standing(Front(redirect=307, to=f"http://127.0.0.1:{wanted.port}"), server.url) as front,
        pytest.raises(UsageError, match=f"redirects to http://127.0.0.1:{wanted.port}, and the key of one host"),
    ):
        identify(endpoint_at(f"http://127.0.0.1:{front.port}"))
    assert wanted.keys <= {""}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (f"http://{'b' * 60}:8080/v1", f"{'b' * 60}:8080"),  # with the port more than a label may have
        (f"https://{'.'.join(['c' * 60] * 4)}:10443", f"{'.'.join(['c' * 60] * 4)}:10443"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://b\u00fccher.example:8080", "xn--bcher-kva.example:8080"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example"),
    ],
)
def test_a_name_is_as_long_as_it_may_be_whatever_its_port(url: str, host: str) -> None:
    """The port is no part of its last label."""
    assert Address.of(url).host_header == host
