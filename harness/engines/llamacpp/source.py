"""Where llama.cpp takes a model's GGUF file from: this host, or the Hub.

`--hf-repo` always takes the newest commit (common/hf-cache.cpp). A commit is pinned by the file's own address instead,
which llama.cpp fetches once into the file that `--model` names and asks about again at each start.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from harness.catalog.models import Model
from harness.engines import hub_cache
from harness.engines.arguments import Value
from harness.engines.base import Place
from harness.errors import UsageError

SUFFIX = ".gguf"
CONTAINER_CACHE = f"{hub_cache.TARGET}/hub"
"""LLAMA_CACHE of a container: the Hub's own cache to builds that keep it, a folder of files to older ones."""
_HUB = "https://huggingface.co"
_ENDPOINTS = ("MODEL_ENDPOINT", "HF_ENDPOINT")  # common/common.cpp, common_get_model_endpoint


def options_for(
    model: Model, place: Place, revision: str | None, environment: Mapping[str, str]
) -> Mapping[str, Value]:
    """The options that name the model. revision: instead of the entry's. environment: of the engine.

    Raises UsageError where the entry names no GGUF file.
    """
    if model.is_local:
        return {"--model": _local_file(model, place.model_path or os.path.expanduser(model.repo))}
    if model.file is None:
        return _unnamed(model)
    if not model.file.endswith(SUFFIX):
        raise UsageError(
            f"llama.cpp serves GGUF files, and {model.file} is none",
            where=model.name,
            advice="Name a file that ends in .gguf.",
        )
    commit = revision or model.revision
    if commit is None:
        return {"--hf-repo": model.repo, "--hf-file": model.file}
    address = f"{_endpoint(place, environment)}/{model.repo}/resolve/{commit}/{model.file}"
    folder = f"{model.repo.replace('/', '--')}/{commit}"
    return {"--model-url": address, "--model": f"{_cache(place, environment)}/gguf/{folder}/{model.file}"}


def _local_file(model: Model, path: str) -> str:
    """The file of an entry whose `repo` is a folder or itself a file, as the engine sees it."""
    if path.endswith(SUFFIX):
        if model.file is not None:
            raise UsageError(
                "both repo and file name a file", where=model.name, advice="Name the folder as `repo`, or drop `file`."
            )
        return path
    if model.file is None:
        raise UsageError(
            f"llama.cpp serves one GGUF file, and {model.repo} is a folder",
            where=model.name,
            advice="Name the file in it: `file: NAME.gguf`.",
        )
    return posixpath.join(path, model.file)


def _unnamed(model: Model) -> Mapping[str, Value]:
    """A repo whose file llama.cpp chooses: Q4_K_M, else Q8_0, else the first."""
    if "gguf" not in model.repo.lower():
        raise UsageError(
            f"{model.repo} is not known to hold GGUF files, the only ones that llama.cpp serves",
            where=model.name,
            advice="Take a repo that holds them (most are called ...-GGUF) and name the file: `file: NAME.gguf`."
            " A safetensors repo has none; llama.cpp's convert_hf_to_gguf.py makes one of it.",
        )
    if model.revision is not None:
        raise UsageError(
            "llama.cpp pins the revision of a file, not of a repo",
            where=model.name,
            advice="Name the file too: `file: NAME.gguf`.",
        )
    return {"--hf-repo": model.repo}


def _endpoint(place: Place, environment: Mapping[str, str]) -> str:
    """Another address of the Hub, where the engine would heed one."""
    inherited = {} if place.container else os.environ
    told = (each.get(name) for name in _ENDPOINTS for each in (environment, inherited))
    return next((address for address in told if address), _HUB).rstrip("/")


def _cache(place: Place, environment: Mapping[str, str]) -> str:
    """A folder that is there for the engine alone and lasts."""
    if place.container:
        return environment.get("LLAMA_CACHE", CONTAINER_CACHE)
    told = environment.get("LLAMA_CACHE") or os.environ.get("LLAMA_CACHE")
    return os.path.abspath(os.path.expanduser(told or "~/.cache/llama.cpp"))
