"""Random values by address: the same seed, purpose and number give the same value, in any order.

Each purpose draws from a stream of its own, so that what is asked can change without moving when it is asked. Values
come from SHAKE-128 (FIPS 202), which is the same on every machine and Python.
"""

from __future__ import annotations

from hashlib import shake_128


def derive(seed: int, purpose: str, *address: int | str) -> int:
    """A 63-bit seed for one purpose, such as the gaps between arrivals of level 2."""
    return int.from_bytes(random_bytes(seed, purpose, *address, size=8), "big") >> 1


def uniform(seed: int, purpose: str, *address: int | str) -> float:
    """A number in (0, 1), ends excluded."""
    return (int.from_bytes(random_bytes(seed, purpose, *address, size=8), "big") // 2048 + 0.5) / 2**53


def random_bytes(seed: int, purpose: str, *address: int | str, size: int) -> bytes:
    return shake_128("/".join(map(str, (seed, purpose, *address))).encode()).digest(size)
