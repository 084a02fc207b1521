"""`sim.hardware`: the catalogue against physics and published ratios, and overrides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sim.data import data_dir, names_in
from sim.hardware import DTYPES, known_gpus, read_gpu, read_link

SPECS = data_dir("hardware_specs")
LINKS = names_in(SPECS / "link")
AICONFIGURATOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "aiconfigurator" / "system_specs"

PROMISED = [
    "a100_40gb_sxm",
    "a100_80gb_sxm",
    "a800_80gb_sxm",
    "h100_sxm",
    "h100_pcie",
    "h800_sxm",
    "h200_sxm",
    "h20",
    "l4",
    "l40",
    "l40s",
    "a10g",
    "a40",
    "a6000",
    "a30",
    "rtx3090",
    "rtx4090",
    "rtx_pro_6000",
    "b200",
    "gb200",
    "b300",
    "mi300x",
    "mi355x",
]

# Dense bf16 FLOP per clock and SM with fp32 accumulation, from the architecture whitepapers; GA102 and AD102 run at
# half rate on the cards in HALF_RATE.
BF16_PER_CLOCK = {
    "ampere": 1024,
    "ga100": 2048,
    "ada": 1024,
    "hopper": 4096,
    "blackwell": 8192,
    "gb202": 1024,
    "cdna3": 2048,
    "cdna4": 4096,
}
HALF_RATE = {"a10g", "rtx3090", "l40", "rtx4090"}
CHIPS = dict.fromkeys(("a100_40gb_sxm", "a100_80gb_sxm", "a800_80gb_sxm", "a30"), "ga100") | {"rtx_pro_6000": "gb202"}


def test_every_promised_gpu_is_there() -> None:
    assert set(PROMISED) <= set(known_gpus())


@pytest.mark.parametrize("name", known_gpus())
def test_a_gpu_file_is_named_like_its_gpu_and_its_link_exists(name: str) -> None:
    gpu = read_gpu(name)
    assert gpu.name == name
    assert gpu.link in LINKS
    assert gpu.memory_bytes % 2**20 == 0


@pytest.mark.parametrize("name", LINKS)
def test_a_link_file_is_named_like_its_link(name: str) -> None:
    assert read_link(name).name == name


@pytest.mark.parametrize("name", known_gpus())
def test_no_sparse_or_half_accumulated_peak_slipped_in(name: str) -> None:
    gpu = read_gpu(name)
    per_clock = BF16_PER_CLOCK[CHIPS.get(name, gpu.architecture)] / (2 if name in HALF_RATE else 1)
    clock_hz = gpu.flops_per_s("bf16") / (gpu.sm_count * per_clock)
    # Boost clocks of these chips lie between 1.4 and 2.65 GHz; the H20's tensor cores are throttled.
    assert clock_hz < 2.65e9
    assert clock_hz > 1.3e9 or name == "h20"


@pytest.mark.parametrize("name", known_gpus())
def test_half_the_width_is_twice_the_rate(name: str) -> None:
    peaks = read_gpu(name).peak_flops_per_s
    assert peaks["fp32"] < peaks["bf16"]
    if "fp8" in peaks:
        assert peaks["fp8"] == pytest.approx(2 * peaks["bf16"], rel=0.03)
    if "fp4" in peaks:
        assert 1.99 <= peaks["fp4"] / peaks["fp8"] <= 3.2  # Blackwell Ultra widened fp4 alone


@pytest.mark.parametrize("name", sorted(set(known_gpus()) - {"h20", "rtx3090"}))
def test_ridge_point_of_bf16_is_plausible(name: str) -> None:
    assert 100 < read_gpu(name).ridge_flops_per_byte("bf16") < 700


def test_fp8_and_fp4_exist_where_the_tensor_cores_have_them() -> None:
    for name in known_gpus():
        gpu = read_gpu(name)
        assert ("fp8" in gpu.peak_flops_per_s) == (gpu.architecture != "ampere"), name
        assert ("fp4" in gpu.peak_flops_per_s) == (gpu.architecture in ("blackwell", "cdna4")), name
    with pytest.raises(ValueError, match="dtype on a100_80gb_sxm must be one of fp32, bf16, int8, got 'fp8'"):
        read_gpu("a100_80gb_sxm").ridge_flops_per_byte("fp8")


def test_published_ratios() -> None:
    h100, h200, h20 = (read_gpu(name) for name in ("h100_sxm", "h200_sxm", "h20"))
    a100, b200, mi300x = (read_gpu(name) for name in ("a100_80gb_sxm", "b200", "mi300x"))
    assert h200.memory_bandwidth_bytes_per_s / h100.memory_bandwidth_bytes_per_s == pytest.approx(1.43, abs=0.005)
    assert h200.peak_flops_per_s == h100.peak_flops_per_s
    assert h100.flops_per_s("bf16") / h20.flops_per_s("bf16") == pytest.approx(6.7, abs=0.05)
    assert mi300x.flops_per_s("bf16") / h100.flops_per_s("bf16") == pytest.approx(1.3, abs=0.05)
    for figure in ("memory_bytes", "memory_bandwidth_bytes_per_s", "power_w"):
        assert getattr(b200, figure) > getattr(h200, figure) > getattr(a100, figure)
    assert b200.flops_per_s("bf16") > h200.flops_per_s("bf16") > a100.flops_per_s("bf16")


@pytest.mark.parametrize(("export", "full"), [("a800_80gb_sxm", "a100_80gb_sxm"), ("h800_sxm", "h100_sxm")])
def test_export_variants_differ_in_their_link_alone(export: str, full: str) -> None:
    slow, fast = read_gpu(export), read_gpu(full)
    assert replace(slow, name=fast.name, link=fast.link, sources=fast.sources) == fast
    assert read_link(slow.link).bandwidth_bytes_per_s < read_link(fast.link).bandwidth_bytes_per_s


def test_links_double_per_generation() -> None:
    for kind, first, last in (("pcie{}_x16", 3, 5), ("nvlink{}", 2, 3)):
        for generation in range(first, last):
            older, newer = (read_link(kind.format(g)).bandwidth_bytes_per_s for g in (generation, generation + 1))
            assert newer == pytest.approx(2 * older)
    assert read_link("nvlink5").bandwidth_bytes_per_s == 2 * read_link("nvlink4").bandwidth_bytes_per_s == 900e9
    assert read_link("infiniband_ndr").bandwidth_bytes_per_s == 400e9 / 8


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "h200_sxm", "l40s"])
def test_figures_agree_with_an_independent_description(name: str) -> None:
    path = AICONFIGURATOR / f"{name}.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    from omegaconf import OmegaConf

    theirs = OmegaConf.load(path)
    ours = read_gpu({"a100_sxm": "a100_80gb_sxm"}.get(name, name))
    assert ours.memory_bandwidth_bytes_per_s == theirs.gpu.mem_bw
    assert ours.flops_per_s("bf16") == pytest.approx(theirs.gpu.bfloat16_tc_flops, rel=0.001)
    assert ours.flops_per_s("int8") == pytest.approx(theirs.gpu.int8_tc_flops, rel=0.001)
    assert ours.memory_bytes == pytest.approx(theirs.gpu.mem_capacity, rel=0.005)
    assert ours.power_w == theirs.gpu.power
    assert read_link(ours.link).bandwidth_bytes_per_s == pytest.approx(theirs.node.intra_node_bw, rel=0.02)


def test_a_number_without_source_is_refused() -> None:
    gpu, link = read_gpu("h200_sxm"), read_link("nvlink4")
    for key in set(gpu.sources) - {"link"}:
        with pytest.raises(ValueError, match="sources must say where peak_flops_per_s" if "peak" in key else key):
            replace(gpu, sources={k: text for k, text in gpu.sources.items() if k != key})
        with pytest.raises(ValueError, match="sources must say where"):
            replace(gpu, sources=gpu.sources | {key: " "})
    per_dtype = {k: text for k, text in gpu.sources.items() if k != "peak_flops_per_s"}
    per_dtype |= {f"peak_flops_per_s.{dtype}": "a table" for dtype in gpu.peak_flops_per_s}
    assert replace(gpu, sources=per_dtype).peak_flops_per_s == gpu.peak_flops_per_s
    with pytest.raises(ValueError, match=r"a key of sources must be one of .* got 'colour'"):
        replace(gpu, sources=gpu.sources | {"colour": "a guess"})
    with pytest.raises(ValueError, match="sources must say where latency_s"):
        replace(link, sources={"bandwidth_bytes_per_s": "a sheet"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_bytes": 80}, r"h200_sxm: memory_bytes must lie in \[1e\+09, 1e\+13\] .*got 80"),
        ({"memory_bandwidth_bytes_per_s": float("nan")}, "memory_bandwidth_bytes_per_s must lie in .*got nan"),
        ({"peak_flops_per_s": {"bf16": 989.0}}, "peak_flops_per_s.bf16 must lie in .*not TFLOP/s.*got 989.0"),
        ({"peak_flops_per_s": {"bf16": 1e15, "fp16": 1e15}}, "must be one of fp32, bf16, fp8, fp4, int8, got 'fp16'"),
        ({"peak_flops_per_s": {"fp8": 1e15}}, "must be one of fp8, got 'bf16'"),
        ({"sm_count": 0}, "sm_count must lie in .*got 0"),
    ],
)
def test_bad_figures_name_field_bound_and_value(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(read_gpu("h200_sxm"), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "string"}, "kind must be one of nvlink, pcie, infiniband, xgmi, got 'string'"),
        ({"bandwidth_bytes_per_s": 450.0}, "bandwidth_bytes_per_s must lie in .*got 450.0"),
        ({"latency_s": 0.6}, "latency_s must lie in .*got 0.6"),
        ({"max_gpus": -1}, "max_gpus must lie in .*got -1"),
    ],
)
def test_bad_links_name_field_bound_and_value(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(read_link("nvlink4"), **change)  # type: ignore[arg-type]


def test_overrides_replace_one_figure_and_its_source() -> None:
    plain = read_gpu("a100_80gb_sxm")
    fields = {"memory_bandwidth_bytes_per_s": 4e12, "memory_bytes": 1.6e11, "peak_flops_per_s.fp8": 7e14}
    gpu = read_gpu("a100_80gb_sxm", fields)
    assert gpu.memory_bandwidth_bytes_per_s == 4e12
    assert gpu.memory_bytes == 160_000_000_000 and isinstance(gpu.memory_bytes, int)
    assert gpu.peak_flops_per_s == plain.peak_flops_per_s | {"fp8": 7e14}
    assert {key for key, text in gpu.sources.items() if text == "cluster.gpu_overrides"} == set(fields)
    assert gpu.sm_count == plain.sm_count and plain == read_gpu("a100_80gb_sxm")
    assert gpu.ridge_flops_per_byte("bf16") == pytest.approx(312e12 / 4e12)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "bandwidth",
            1e12,
            r"cluster.gpu_overrides must be one of memory_bytes, .*peak_flops_per_s\.int8, got 'bandwidth'",
        ),
        ("peak_flops_per_s.fp16", 1e15, "got 'peak_flops_per_s.fp16'"),
        ("link", 1.0, "got 'link'"),
        ("memory_bandwidth_bytes_per_s", 4.8, "memory_bandwidth_bytes_per_s must lie in .*got 4.8"),
        ("peak_flops_per_s.bf16", -1.0, "peak_flops_per_s.bf16 must lie in .*got -1"),
        ("sm_count", 132.5, "gpu_overrides.sm_count must be a whole number, got 132.5"),
        ("memory_bytes", float("inf"), "gpu_overrides.memory_bytes must be a whole number, got inf"),
    ],
)
def test_bad_overrides_are_refused(key: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_gpu("h200_sxm", {key: value})


def test_dtypes_of_the_catalogue_are_all_used() -> None:
    assert set(DTYPES) == {dtype for name in known_gpus() for dtype in read_gpu(name).peak_flops_per_s}
