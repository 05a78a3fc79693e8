"""Under which names requests are asked."""

from __future__ import annotations

import uuid
from itertools import product

import pytest

from harness.load.request_ids import request_id


@pytest.mark.parametrize("run_id", ["20250131T120000Z-demo", "höhe ü", "\udcff", "a\n"])
def test_a_request_id_is_the_text_of_a_uuid(run_id: str) -> None:
    """As strict readers want it: lower case, five groups, version and variant of a random one."""
    name = request_id(run_id, 1, 0, 7)
    assert str(uuid.UUID(name)) == name
    assert (uuid.UUID(name).version, uuid.UUID(name).variant) == (4, uuid.RFC_4122)


def test_no_two_requests_share_an_id() -> None:
    """Neither in a run nor between runs, and no part of the name runs into the next one."""
    names = [request_id(*each) for each in product(("a", "a1", "1"), (1, 11, -1), (0, 1, 11), range(50))]
    assert len(set(names)) == len(names)


def test_the_same_run_asks_under_the_same_ids_again() -> None:
    """A fixed name: what was joined with a server's log once can be joined again."""
    assert request_id("run", 1, 0, 0) == "a1f9d8bb-9763-4e0b-ae3c-af7e6efb1890"
