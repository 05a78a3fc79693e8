"""What an engine accepts in an entry where the words are its own (`quantize`); the engines tell the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Accepts:
    """Values of keys whose words differ from engine to engine. newest: the version of an entry that names none.

    kv_cache_aliases: other names of a kv_cache_dtype. stored_as: the catalogue's name (shapes.bytes_per_weight) of what
    a word of quantize stores, where it is another. twins: environment variables that another key of the entry sets
    too, by the key's path. rivals: keys of which an entry may have only one; `but_for`: values of the second that bear
    with the first. limit_order: (lower, upper, strict), as the engine itself checks them.
    """

    newest: str
    dtypes: tuple[str, ...] = ()
    quantize: tuple[str, ...] = ()
    kv_cache_dtypes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    kv_cache_aliases: Mapping[str, str] = field(default_factory=dict)
    stored_as: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dtype_or_quantize: bool = False
    limit_order: tuple[tuple[str, str, bool], ...] = ()
