"""What a start of TGI tells a prober, by its log and by what its releases are known to do."""

from __future__ import annotations

import pytest

from harness.catalog.limits import Limits
from harness.catalog.models import Model
from harness.engines.base import EngineInfo
from harness.engines.tgi.facts import facts_of
from harness.engines.tgi.log import TgiLog

MODEL = Model("own", "acme/own-model")


def log(*lines: str) -> TgiLog:
    found = TgiLog()
    for line in ("Inferred max batch total tokens: 10400", "Setting max batch total tokens to 10400", *lines):
        found.feed(line)
    return found


@pytest.mark.parametrize(
    ("version", "lines", "size"),
    [
        ("1.4.5", (), 16),
        ("2.2.0", (), 16),
        ("2.3.1", ("Using attention flashinfer - Prefix caching true",), 1),
        ("2.3.1", ("Using attention paged - Prefix caching 0",), 16),
        ("3.3.6-dev0", ("Using attention flashdecoding - Prefix caching true",), 256),
        ("3.3.6-dev0", ("KV-cache blocks: 650, size: 16",), 16),
        ("3.3.6-dev0", (), 1),
    ],
)
def test_cache_is_handed_out_in_blocks_that_old_releases_do_not_tell(
    version: str, lines: tuple[str, ...], size: int
) -> None:
    """Pages of sixteen tokens before 2.3; one of the blocks is never handed out."""
    info = EngineInfo(engine="tgi", version=version, model_id="x", emulated=False, limits=Limits())
    facts = facts_of(info, log(*lines), Limits(), Limits(), MODEL)
    assert (facts.kind, facts.block_size, facts.usable) == ("flash", size, 10_400 // size * size - size)
