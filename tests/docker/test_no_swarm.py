"""`--runtime swarm` on a Docker Engine that is in no swarm."""

from __future__ import annotations

import pytest

from harness.stack.docker import engine
from harness.stack.render_swarm import MAKE_LOOPBACK_BRIDGE
from tests.docker.conftest import Harness

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("catalogue")]


def test_missing_swarm_is_named(harness: Harness) -> None:
    """Exit 3 before anything is built, with the commands that make one on 127.0.0.1."""
    if engine().info()["Swarm"]["LocalNodeState"] == "active":
        pytest.skip("this Docker Engine is in a swarm")
    refused = harness("up", "one", "--runtime", "swarm", "--emulate", check=False)
    assert refused.returncode == 3
    assert f"{MAKE_LOOPBACK_BRIDGE} && docker swarm init" in refused.stderr
