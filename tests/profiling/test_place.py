"""Names of devices."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling.place import find_place, gpu_name


@pytest.mark.parametrize(
    ("driver", "file"),
    [
        ("NVIDIA H200", "h200_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb_sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb_sxm"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
        ("NVIDIA RTX A6000", "a6000"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA H100 NVL", "nvidia_h100_nvl"),
        ("Tesla T4", "tesla_t4"),
    ],
)
def test_a_driver_s_name_becomes_the_file_of_the_gpu_or_stays_itself(driver: str, file: str) -> None:
    assert gpu_name(driver) == file


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    place = find_place("auto", "bf16")
    assert (place.gpu, place.is_cuda, place.element_bytes) == ("cpu", False, 2)
    with pytest.raises(ValueError, match="torch sees no GPU"):
        find_place("cuda", "bf16")


@pytest.mark.parametrize(("device", "dtype"), [("tpu", "bf16"), ("cpu", "fp8")])
def test_unknown_names_are_refused(device: str, dtype: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        find_place(device, dtype)
