"""GPUs of this host as their makers' libraries tell of them. A maker is a module with `cards`, and a line in MAKERS of
samplers/gpu.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol


class NoLibrary(Exception):
    """The maker's library is not here, or tells nothing; the text says why."""


class Card(Protocol):
    """One GPU. index: as the maker's tool counts. name: as it prints."""

    index: str
    name: str

    def processes(self) -> Set[int]:
        """Numbers of those that compute on it, as the host counts them; empty where it does not tell."""
        ...

    def read(self) -> Mapping[str, float]:
        """What it is like now by the names of samplers/gpu.py; what it does not tell is left out. Raises NoLibrary
        where it has gone.
        """
        ...
