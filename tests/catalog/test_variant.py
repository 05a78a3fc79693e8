"""An entry with some keys changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog.models import Model
from harness.catalog.prices import prices
from harness.catalog.variant import on_gpu, variant
from harness.engines import accepted
from harness.errors import UsageError

CATALOGUE = """
defaults:
  engine: {name: tgi, version: "3.3.6"}
models:
  small: {repo: Qwen/Qwen2.5-0.5B-Instruct, gpu: L4, revision: abc, limits: {max_total_tokens: 4096}, env: {A: "1"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "models.yaml"
    path.write_text(CATALOGUE)
    return str(path)


def test_keys_are_put_over_the_entry_and_the_rest_stays(file: str) -> None:
    """Whole keys, and paths with dots; values are YAML."""
    changes = ["dtype=float16", "limits.max_batch_size=16", "env.B='2'"]
    found = variant(file, "small", changes, "ab-b", accepted())
    assert (found.name, found.dtype, found.gpu) == ("ab-b", "float16", "L4")
    assert (found.limits.max_total_tokens, found.limits.max_batch_size) == (4096, 16)
    assert found.env == {"A": "1", "B": "2"}
    assert found.engine.version == "3.3.6"


def test_another_engine_is_its_newest_release(file: str) -> None:
    """Not in the version that the defaults give the other one."""
    found = variant(file, "small", ["engine=vllm"], "ab-b", accepted())
    assert (found.engine.name, found.engine.version) == ("vllm", accepted()["vllm"].newest)


def test_another_repo_has_no_revision_of_the_first(file: str) -> None:
    """What belonged to the other weights is dropped."""
    found = variant(file, "small", ["repo=Qwen/Qwen2.5-1.5B-Instruct"], "ab-b", accepted())
    assert (found.repo, found.revision) == ("Qwen/Qwen2.5-1.5B-Instruct", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dtype", "expected KEY=VALUE"),
        ("=4", "expected KEY=VALUE"),
        ("limits.max_batch_szie=4", "max_batch_size"),
        ("limits={", "not valid YAML"),
        ("engine=tgy", "tgy"),
    ],
)
def test_what_is_wrong_is_one_line(file: str, change: str, words: str) -> None:
    """As in models.yaml itself; what was asked for is named."""
    with pytest.raises(UsageError, match=words) as raised:
        variant(file, "small", [change], "ab-b", accepted())
    assert raised.value.exit_code == 2


def test_the_price_is_that_of_the_card_that_serves() -> None:
    """On its own card an entry's price holds, on another one the table's, and none where it has none."""
    own = Model(name="m", repo="r", gpu="L4", price_per_gpu_hour=0.5, price_source="ours")
    assert (on_gpu(own, "L4").price_per_gpu_hour, on_gpu(own, "L4").price_source) == (0.5, "ours")
    other = on_gpu(own, "L40S")
    assert (other.gpu, other.price_per_gpu_hour) == ("L40S", prices()["L40S"].usd_per_hour)
    assert other.price_source == prices()["L40S"].text
    assert (on_gpu(own, "A30").price_per_gpu_hour, on_gpu(own, "A30").price_source) == (None, None)
    unpriced = Model(name="m", repo="r")
    assert on_gpu(unpriced, "L4").price_per_gpu_hour == prices()["L4"].usd_per_hour
