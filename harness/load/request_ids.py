"""Request ids: UUIDs derived from the run's id and seed, so that the same run uses the same ids again."""

from __future__ import annotations

import uuid
from hashlib import blake2b


def request_id(run_id: str, seed: int, level: int, number: int, follow_up: int = 0) -> str:
    """Lower case text of a UUID: the same for the same arguments, another one for any others.

    number: of the request, or of the conversation that it begins. follow_up: how many requests of the conversation came
    before it.

    Of version 4 (random, here by a hash, RFC 9562 section 5.4): request-id middlewares take UUIDs, some that version
    alone, and answer 400 to anything else or join the request under a name of their own.
    """
    parts = (run_id, seed, level, number, *((follow_up,) if follow_up else ()))
    name = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return str(uuid.UUID(bytes=blake2b(name, digest_size=16).digest(), version=4))
