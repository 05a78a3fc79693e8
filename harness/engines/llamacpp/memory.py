"""What llama.cpp's memory law needs of an entry: the file's type or size, and how the cache is split."""

from __future__ import annotations

import re
from typing import Any

from harness.catalog.models import Model
from harness.catalog.version import Version
from harness.engines.arguments import words
from harness.engines.base import Invocation, MemoryLaw
from harness.engines.llamacpp.flags import asks_for_one_cache, number, setting
from harness.engines.llamacpp.options import flags_for

# As files are named; the types whose size the law knows (simulator/laws/llamacpp.py).
_TYPE = re.compile(r"(?i)(?<![A-Z0-9])(BF16|F16|F32|MXFP4|I?Q\d(?:_(?:K_[SML]|K|NL|XS|[01MS])))(?![A-Z0-9_])")


def law_of(model: Model, version: Version) -> MemoryLaw | None:
    """For simulator/laws.LlamaPlan. None without a GPU, on several, and for a file whose size nobody can tell."""
    named = _TYPE.search(model.file or "") or _TYPE.search(model.repo)
    if model.engine.variant == "cpu" or model.gpus > 1 or (named is None and model.weight_bytes is None):
        return None
    own = Invocation(model.engine.args, model.env)
    ours = flags_for(model.limits, version, own=own, where=model.name)
    told = Invocation((*words(ours), *model.engine.args), model.env)
    cache = model.kv_cache_dtype or "f16"
    options: dict[str, Any] = {
        "weight_bytes": model.weight_bytes,
        "ctx_size": number(told, "--ctx-size"),
        "parallel": number(told, "--parallel"),
        "unified": asks_for_one_cache(told) or None,
        "per_slot": number(told, "--kv-unified-per-slot"),
        "batch": number(told, "--batch-size") or 2048,
        "ubatch": number(told, "--ubatch-size") or 512,
        "cache_type_k": setting(told, "--cache-type-k") or cache,
        "cache_type_v": setting(told, "--cache-type-v") or cache,
        "fit": (setting(told, "--fit") or "on") != "off",
    }
    return MemoryLaw("llamacpp", options | ({"file_type": named[1].upper()} if named else {}))
