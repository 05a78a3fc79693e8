"""The highest load that holds, read off the levels of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.stats.capacity import find_capacity


def level(load: float, holds: bool | None, valid: bool = True):
    """All that capacity looks at."""
    return SimpleNamespace(load=load, users=int(load), attainment=SimpleNamespace(holds=holds), valid=valid)


@pytest.mark.parametrize(
    ("levels", "highest", "above", "broken"),
    [
        ([level(1, True), level(4, True), level(16, False)], 4, 16, 16),
        ([level(16, False), level(4, True), level(1, True)], 4, 16, 16),  # in any order
        ([level(1, True), level(4, True)], 4, None, None),  # the end was not reached
        ([level(1, False), level(4, True)], None, 1, 1),  # what holds above a level that does not is luck
        ([level(1, True, valid=False), level(4, True), level(16, False)], 4, 16, 16),  # nothing speaks against 1
        ([level(1, True), level(4, True, valid=False), level(16, False)], 1, 4, 16),  # 4 cannot be judged
        ([level(1, True), level(4, True, valid=False)], 1, 4, None),
        ([level(1, True, valid=False)], None, 1, None),
        ([level(1, True, valid=False), level(4, False)], None, 1, 4),
        ([level(1, None)], None, None, None),  # no SLO
        ([], None, None, None),
    ],
)
def test_the_highest_level_that_holds_with_its_neighbour(levels, highest, above, broken) -> None:
    """One case per rule; what is called not to hold is a level that broke, not one that cannot be judged."""
    found = find_capacity(levels)
    loads = [section.load if section else None for section in (found.highest, found.above, found.broken)]
    assert loads == [highest, above, broken]
    told = found.as_dict()
    assert told is None or (told["highest_that_holds"], told["next_that_does_not"]) == (highest, broken)
