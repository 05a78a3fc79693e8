"""The GPU sheets: found by every name in use, in the units that the formulas take."""

from __future__ import annotations

import pytest

from harness.catalog.gpus import find_gpu, gpus
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("L4", "L4"),
        ("l4", "L4"),
        ("NVIDIA L4", "L4"),
        ("L4-24GB", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("H100", "H100"),
        ("H100 SXM", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H100 PCIe", "H100-PCIe"),
        ("A100", "A100"),
        ("A100 80 GB SXM", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("RTX A6000", "RTXA6000"),
        ("MI300X", "MI300X"),
    ],
)
def test_a_gpu_is_found_by_each_of_its_names(asked: str, name: str) -> None:
    """Case, spaces, dashes and the name that nvidia-smi prints do not matter."""
    assert find_gpu(asked).name == name


def test_no_name_means_two_cards() -> None:
    """Names and aliases of all sheets lead to one card each."""
    for gpu in gpus().values():
        for name in (gpu.name, gpu.smi_name, *gpu.aliases):
            assert find_gpu(name) is gpu, name


def test_an_unknown_gpu_offers_the_nearest() -> None:
    """A slip of the finger is answered with the card that was meant."""
    with pytest.raises(UsageError, match=r"Did you mean RTX4090.*\? Known: T4, "):
        find_gpu("RTX4009")
    with pytest.raises(UsageError, match=r"unknown GPU 'abacus'\. Known: T4, "):
        find_gpu("abacus")


def test_figures_are_in_bytes_and_flops() -> None:
    """An L4 has 23034 MiB, of which CUDA sees less, 300 GB/s and 121 TFLOP/s."""
    card = find_gpu("L4")
    assert card.memory_bytes == 23034 * 2**20
    assert (card.bandwidth, card.fp16_flops, card.compute_capability) == (300e9, 121e12, (8, 9))


def test_every_sheet_is_plausible() -> None:
    """CUDA sees a little less than nvidia-smi prints; fp8 beats fp16; another maker's card has no capability."""
    for gpu in gpus().values():
        assert 0.93 * gpu.memory_bytes < gpu.visible_bytes < gpu.memory_bytes, gpu.name
        assert gpu.fp8_flops is None or gpu.fp8_flops > 1.5 * gpu.fp16_flops, gpu.name
        assert gpu.link_bandwidth < gpu.bandwidth, gpu.name
        assert (gpu.compute_capability == (0, 0)) == gpu.smi_name.startswith("AMD"), gpu.name
