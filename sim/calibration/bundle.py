"""The calibrations that come with the project: which public tables each is fitted on.

`python -m sim.calibration.bundle DATA [NAME...]` fits them again from a folder with the tables and writes
`hardware_specs/calibration/`; `sim.calibration.bundle_family` fits one family alone. The tables themselves belong to
others and are not part of the project.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sim.calibration.calibration import Calibrated, fit_calibration
from sim.calibration.checks import Trace
from sim.calibration.importers import aiconfigurator, infersim, llmservingsim, llmservingsim_v0
from sim.calibration.pooled import pooled, predicted_from
from sim.calibration.provenance import Sources, sources, write_calibration
from sim.cost.constants import FAMILIES, GENERIC, Calibration, read_constants
from sim.cost.efficiency import Efficiency
from sim.data import data_dir
from sim.hardware import Gpu, read_gpu

READERS: dict[str, Callable[[Path], Trace]] = {
    "aiconfigurator": aiconfigurator.read_table,
    "infersim": infersim.read_file,
    "llmservingsim": llmservingsim.read_file,
    "llmservingsim_v0": llmservingsim_v0.read_file,
}

_OPS = (
    "gemm/{e}/*/gemm_perf", "moe/{e}/*/moe_perf", "attention/{e}/*/*_perf", "comm/{e}/*/custom_allreduce_perf",
    "mla/{e}/*/generation_mla_perf",
)  # fmt: skip
_GRAPH_FP8 = "aisimulate_*/{gpu}/gemm/{e}/0.25.0/gemm_perf.parquet"
"""vLLM's blockwise fp8 GEMMs inside a CUDA graph; those of 0.24.0 ran eagerly."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one file is fitted on.

    Attributes:
        gpu, engine: whose kernels.
        database: importer.
        patterns: files under the data folder of that database.
        said: what the rows are, for the file.
        kin: file that supplies what they do not cover.
        eager: the rows are kernel times from outside a CUDA graph.
        only_fp8: patterns of which blockwise fp8 rows alone count.
    """

    gpu: str
    engine: str
    database: str
    patterns: tuple[str, ...]
    said: str
    kin: str = GENERIC
    eager: bool = False
    only_fp8: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.gpu}_{self.engine}"


def _large(gpu: str, folder: str, engine: str, said: str) -> Recipe:
    patterns = tuple(f"{folder}/{pattern.format(e=engine)}.parquet" for pattern in _OPS)
    graph = (_GRAPH_FP8.format(gpu=folder, e=engine),) if engine == "vllm" and folder.startswith("h") else ()
    words = f"{said}, AIConfigurator database (Apache-2.0), in-graph kernel times of one GPU"
    return Recipe(gpu=gpu, engine=engine, database="aiconfigurator", patterns=patterns, said=words, only_fp8=graph)


def _small(gpu: str, folder: str, kin: str, version: str = "profiles_v1") -> Recipe:
    patterns = tuple(f"{version}/{folder}/*/*/*/tp1/{table}.csv*" for table in ("dense", "attention", "moe"))
    words = "vLLM 0.19.0, LLMServingSim layer profiles, kernel times in eager mode"
    return Recipe(gpu=gpu, engine="vllm", database="llmservingsim", patterns=patterns, said=words, kin=kin, eager=True)


LARGE = (
    _large("h200_sxm", "h200_sxm", "vllm", "vLLM 0.24.0 (blockwise fp8 GEMM: 0.25.0)"),
    _large("h200_sxm", "h200_sxm", "sglang", "SGLang 0.5.14"),
    _large("h200_sxm", "h200_sxm", "trtllm", "TensorRT-LLM 1.3.0rc20"),
    _large("h100_sxm", "h100_sxm", "vllm", "vLLM 0.24.0 (blockwise fp8 GEMM: 0.25.0)"),
    _large("h100_sxm", "h100_sxm", "sglang", "SGLang 0.5.14"),
    _large("h100_sxm", "h100_sxm", "trtllm", "TensorRT-LLM 1.3.0rc20"),
    _large("a100_80gb_sxm", "a100_sxm", "sglang", "SGLang 0.5.10"),
    _large("a100_80gb_sxm", "a100_sxm", "vllm", "vLLM 0.14.0"),
    _large("a100_80gb_sxm", "a100_sxm", "trtllm", "TensorRT-LLM 1.0.0"),
    _large("l40s", "l40s", "vllm", "vLLM 0.24.0 (all-reduce: 0.22.0)"),
    _large("l40s", "l40s", "sglang", "SGLang 0.5.14"),
    _large("l40s", "l40s", "trtllm", "TensorRT-LLM 1.3.0rc20"),
)
"""GPUs whose every family was measured on many shapes."""

JUDGED = ("h200_sxm_vllm", "h100_sxm_vllm", "a100_80gb_sxm_sglang", "l40s_vllm")
"""The cells of the accuracy table; the constants for any GPU are fitted to these together."""

_INFERSIM = ("gemm/{g}/*.csv", "mha/decode/{g}/*.csv", "mha/prefill/{g}/*.csv", "mla/decode/{g}/*.csv")

SMALL = (
    *(
        Recipe(
            gpu=gpu,
            engine="sglang",
            database="infersim",
            patterns=tuple(f"bench_data/{pattern.format(g=folder)}" for pattern in _INFERSIM),
            said="DeepGEMM, FlashAttention-3 and FlashInfer, InferSim benchmarks (Apache-2.0), eager",
            kin="h100_sxm_sglang",
            eager=True,
        )
        for gpu, folder in (("h20", "h20"), ("h800_sxm", "h800"))
    ),
    _small("rtx4090", "RTX4090", "l40s_vllm"),
    _small("rtx_pro_6000", "RTXPRO6000", "l40s_vllm"),
    *(
        Recipe(
            gpu=gpu,
            engine="vllm",
            database="llmservingsim_v0",
            patterns=(f"profiles_v0/{folder}/*/*/tp1/layers.csv*",),
            said="cuBLAS GEMMs of Hugging Face modules, LLMServingSim profiles, eager",
            kin="a100_80gb_sxm_vllm",
            eager=True,
        )
        for gpu, folder in (("a6000", "A6000"), ("rtx3090", "RTX3090"))
    ),
    _small("l4", "L4", "l40s_vllm", "profiles_v1_forks"),
    _small("a10g", "A10G", "a100_80gb_sxm_vllm", "profiles_v1_forks"),
)
"""GPUs of which a few shapes were measured; the rest comes from their kin."""


def gather(recipe: Recipe, data: Path) -> Sources:
    """The rows of a recipe from the data folder.

    Raises:
        FileNotFoundError: none of its files is there.
    """
    base = data / recipe.database.removesuffix("_v0")
    read = READERS[recipe.database]
    files = [(str(path.relative_to(base)), path, read(path)) for path in _found(base, recipe.patterns)]
    for path in _found(base, recipe.only_fp8):
        trace = read(path)
        rows = trace.rows[(trace.rows["dtype"] == "fp8_block").to_numpy(bool)]
        files.append((str(path.relative_to(base)), path, replace(trace, rows=rows)))
    if not files:
        raise FileNotFoundError(f"no table of {recipe.name} under {base}: {', '.join(recipe.patterns)}")
    return sources(files)


def fit_large(data: Path) -> dict[str, Calibrated]:
    """The calibrations of `LARGE`, with the errors of predicting each from its kin and from a stranger."""
    fitted = {recipe.name: _fit(recipe, data) for recipe in LARGE}
    for name, own in fitted.items():
        others = [other for key, other in fitted.items() if key != name]
        fitted[name] = replace(own, calibration=with_transfer_errors(own, others))
    return fitted


def with_transfer_errors(own: Calibrated, others: Iterable[Calibrated]) -> Calibration:
    """`own` with the errors of predicting it from the nearest other GPU, inside and outside its architecture."""
    gpu = read_gpu(own.calibration.gpu)
    strange: list[Calibrated] = []
    related: list[Calibrated] = []
    for other in others:
        if other.calibration.engine == own.calibration.engine and other.calibration.gpu != gpu.name:
            (related if other.calibration.architecture == gpu.architecture else strange).append(other)
    return replace(
        own.calibration, kin_errors=_transfer(own, related, gpu), stranger_errors=_transfer(own, strange, gpu)
    )


def generic(fitted: dict[str, Calibrated], day: str) -> Calibration:
    """One set of constants for any GPU; small kernels, sampling and all-reduce are assumed."""
    parts: dict[str, Any] = {}
    for family in FAMILIES:
        fits = [fitted[name].fits[family] for name in JUDGED]
        parts[family] = pooled(fits, f"fitted to {', '.join(JUDGED)} together; error: mean over GPUs held out whole")
    small = Efficiency(
        memory_efficiency=0.7, compute_efficiency=1.0, fixed_s=2.0e-6,
        source="assumed, a small kernel inside a CUDA graph and a streaming kernel at 70 % of bandwidth",
    )  # fmt: skip
    sampling = Efficiency(
        memory_efficiency=0.6, compute_efficiency=1.0, fixed_s=30.0e-6,
        source="assumed, about ten small kernels over the logits of a step",
    )  # fmt: skip
    parts["allreduce"] = fitted["h100_sxm_vllm"].calibration.allreduce
    return Calibration(
        gpu=GENERIC, architecture=GENERIC, engine=GENERIC, fitted_on=day, elementwise=small, sampling=sampling, **parts
    )


def write(calibration: Calibration, name: str) -> None:
    """Into `hardware_specs/calibration/`."""
    what = "any GPU" if name == GENERIC else f"{calibration.gpu} under {calibration.engine}"
    path = data_dir("hardware_specs") / "calibration" / f"{name}.yaml"
    write_calibration(calibration, path, f"Constants of the cost model: {what}.")


def main(arguments: list[str]) -> int:
    """Fit and write every file, or the small ones named."""
    data, chosen = Path(arguments[0]), set(arguments[1:])
    large = {} if chosen else fit_large(data)
    for name, one in large.items():
        write(one.calibration, name)
        _say(name, one)
    if large:
        write(generic(large, large[JUDGED[0]].calibration.fitted_on), GENERIC)
    relatives: dict[str, list[dict[str, float]]] = {}
    for recipe in SMALL:
        if not chosen or recipe.name in chosen:
            one = _fit(recipe, data)
            errors = _from_kin(one)
            related = read_constants(recipe.kin).architecture == one.calibration.architecture
            kin, strange = (errors, {}) if related else ({}, errors)
            write(replace(one.calibration, kin_errors=kin, stranger_errors=strange), recipe.name)
            _say(recipe.name, one)
            if related:
                relatives.setdefault(recipe.kin, []).append(errors)
    for name, one in large.items():
        known = [one.calibration.kin_errors, *relatives.get(name, [])]
        means = {family: _mean([errors[family] for errors in known if family in errors]) for family in one.fits}
        write(replace(one.calibration, kin_errors={key: mean for key, mean in means.items() if mean}), name)
    return 0


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _fit(recipe: Recipe, data: Path) -> Calibrated:
    base = None if recipe.kin == GENERIC else read_constants(recipe.kin)
    return fit_calibration(
        gather(recipe, data), read_gpu(recipe.gpu), recipe.engine, recipe.said, kin=recipe.kin, base=base,
        eager=recipe.eager,
    )  # fmt: skip


def _from_kin(one: Calibrated) -> dict[str, float]:
    kin = read_constants(one.calibration.kin)
    return {name: predicted_from(fit, getattr(kin, name)) for name, fit in one.fits.items() if getattr(kin, name)}


def _transfer(own: Calibrated, others: list[Calibrated], gpu: Gpu) -> dict[str, float]:
    if not others:
        return {}

    def apart(other: Calibrated) -> float:
        theirs = read_gpu(other.calibration.gpu).memory_bandwidth_bytes_per_s
        return abs(math.log(theirs / gpu.memory_bandwidth_bytes_per_s))

    near = min(others, key=apart)
    shared = own.fits.keys() & near.fits.keys()
    return {name: predicted_from(own.fits[name], near.fits[name].efficiency) for name in sorted(shared)}


def _found(base: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(base.glob(pattern))]


def _say(name: str, one: Calibrated) -> None:
    errors = ", ".join(f"{family} {fit.error():.1%}" for family, fit in one.fits.items())
    left = ", ".join(one.skipped) or "nothing"
    sys.stdout.write(f"{name}: {errors}; left to {one.calibration.kin}: {left}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
