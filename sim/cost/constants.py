"""The measured constants of one GPU under one engine, a YAML of `hardware_specs/calibration/` each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from sim.cost.efficiency import DecodeEfficiency, DenseEfficiency, Efficiency, ExpertEfficiency, PrefillEfficiency
from sim.cost.latent import LatentEfficiency
from sim.data import data_dir, names_in, read_named

GENERIC = "generic"
"""The file whose constants were fitted to all GPUs together; no GPU's own."""

FAMILIES = ("dense", "experts", "attention_prefill", "attention_decode")
"""The op families that every calibrated GPU prices; their errors are what a note quotes."""

_MOST_OF_A_LINK = 1.1
"""Bus bandwidth over the link's peak that a measurement may show: peaks are rounded."""


@dataclass(kw_only=True, slots=True)
class AllReduce:
    """A two-parameter line per GPU count: t = latency_s + 2 (n - 1) / n * bytes / (link_efficiency * link bandwidth).

    Attributes:
        link_kind: the kind of link it was measured over.
        latency_s: GPU count -> seconds of a tiny message.
        link_efficiency: GPU count -> bus bandwidth over the link's peak in one direction.
        error, source: as for Efficiency.
    """

    link_kind: str
    latency_s: dict[int, float]
    link_efficiency: dict[int, float]
    error: float | None = None
    source: str

    def __post_init__(self) -> None:
        if not self.latency_s or sorted(self.latency_s) != sorted(self.link_efficiency):
            raise ValueError("allreduce: latency_s and link_efficiency must hold the same GPU counts, at least one")
        shares = self.link_efficiency.values()
        if min(self.latency_s.values()) < 0 or not all(0 < share <= _MOST_OF_A_LINK for share in shares):
            raise ValueError(f"allreduce: latency_s must be >= 0 and link_efficiency in (0, {_MOST_OF_A_LINK}]")

    def slowed(self, factor: float) -> AllReduce:
        """The same, `factor` times as long."""
        return replace(
            self,
            latency_s={ranks: factor * seconds for ranks, seconds in self.latency_s.items()},
            link_efficiency={n: min(_MOST_OF_A_LINK, share / factor) for n, share in self.link_efficiency.items()},
        )


@dataclass(kw_only=True, slots=True)
class Calibration:
    """One file: what was measured on this GPU under this engine; what was not comes from `kin`.

    Attributes:
        gpu, architecture, engine: whose kernels.
        kin: the file that the missing families are taken from; empty where none is missing.
        fitted_on: date of the fit.
        tables: measured table -> SHA-256 of the file.
        set_aside: reason -> rows that were not used.
        kin_errors: family -> mean error of predictions between this GPU and others of its architecture.
        stranger_errors: family -> error when this GPU is predicted from the nearest GPU of another architecture.
        dense, experts, ...: the families; None where not measured. `_fp8`: GEMMs with fp8 weights and activations.
    """

    gpu: str
    architecture: str
    engine: str
    kin: str = ""
    fitted_on: str = ""
    tables: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    kin_errors: dict[str, float] = field(default_factory=dict)
    stranger_errors: dict[str, float] = field(default_factory=dict)
    dense: DenseEfficiency | None = None
    dense_fp8: DenseEfficiency | None = None
    experts: ExpertEfficiency | None = None
    experts_fp8: ExpertEfficiency | None = None
    attention_prefill: PrefillEfficiency | None = None
    attention_decode: DecodeEfficiency | None = None
    attention_latent: LatentEfficiency | None = None
    elementwise: Efficiency | None = None
    sampling: Efficiency | None = None
    allreduce: AllReduce | None = None


@dataclass(kw_only=True, slots=True)
class Constants:
    """All families of one GPU and engine, those of a kin where it was not measured; never changed.

    Attributes:
        attention_latent: decode attention over MLA's latent cache; None: priced with attention_decode.
        exchange: lines of all-gather and reduce-scatter between groups that share experts; None: the all-reduce's.
        borrowed: family -> GPU and engine that it comes from.
        others: as in `Calibration`.
    """

    gpu: str
    architecture: str
    engine: str
    dense: DenseEfficiency
    dense_fp8: DenseEfficiency | None = None
    experts: ExpertEfficiency
    experts_fp8: ExpertEfficiency | None = None
    attention_prefill: PrefillEfficiency
    attention_decode: DecodeEfficiency
    attention_latent: LatentEfficiency | None = None
    elementwise: Efficiency
    sampling: Efficiency
    allreduce: AllReduce
    exchange: AllReduce | None = None
    kin_errors: dict[str, float] = field(default_factory=dict)
    stranger_errors: dict[str, float] = field(default_factory=dict)
    borrowed: dict[str, str] = field(default_factory=dict)

    def dense_at(self, dtype: str) -> DenseEfficiency:
        """The GEMM constants at a data type: those of bf16 where no others were fitted."""
        return self.dense_fp8 if dtype == "fp8" and self.dense_fp8 is not None else self.dense

    def experts_at(self, dtype: str) -> ExpertEfficiency:
        """The experts' constants at a data type, as `dense_at`."""
        return self.experts_fp8 if dtype == "fp8" and self.experts_fp8 is not None else self.experts


def calibration_names() -> list[str]:
    """Names of the files of single GPUs, `<gpu>_<engine>`, in order."""
    return [name for name in names_in(data_dir("hardware_specs") / "calibration") if name != GENERIC]


def calibration_mentions(name: str, family: str, architecture: str) -> bool:
    """Whether a file has an op family and an architecture, by its text: reading it whole takes 50 times as long."""
    text = (data_dir("hardware_specs") / "calibration" / f"{name}.yaml").read_text("utf-8")
    return f"\n{family}:" in text and f"\narchitecture: {architecture}\n" in text


def read_calibration(name: str) -> Calibration:
    """One file of `hardware_specs/calibration/` as it stands.

    Raises:
        ValueError: no such file, or a constant out of its bounds.
    """
    return read_named(data_dir("hardware_specs") / "calibration", name, Calibration, "cost.constants")


@cache
def read_constants(name: str) -> Constants:
    """One file of `hardware_specs/calibration/`, complete with the families of its kin.

    Raises:
        ValueError: as `read_calibration`, or a family that neither it nor its kin has.
    """
    return completed(read_calibration(name), name)


def completed(own: Calibration, name: str) -> Constants:
    """`own` with the families of its kin where it has none; `name` is for the message."""
    kin = read_constants(own.kin) if own.kin else None
    found: dict[str, object] = {}
    borrowed: dict[str, str] = {}
    for part in fields(Constants):
        value = getattr(own, part.name, None)
        if value is None and kin is not None and part.name != "borrowed":
            value = getattr(kin, part.name)
            if value is not None:
                borrowed[part.name] = kin.borrowed.get(part.name, f"{kin.gpu} under {kin.engine}")
        if value is not None:
            found[part.name] = value
    missing = [part for part in (*FAMILIES, "elementwise", "sampling", "allreduce") if part not in found]
    if missing:
        raise ValueError(f"calibration {name}: no constants for {', '.join(missing)}; set kin to a file that has them")
    return Constants(**found, borrowed=borrowed)  # type: ignore[arg-type]


def calibrated() -> list[Constants]:
    """Every GPU and engine with a file, in order of name."""
    return [read_constants(name) for name in calibration_names()]


def slowed(constants: Constants, factor: float) -> Constants:
    """`constants` of kernels that take `factor` times as long, or as long as the peak rates let them, if < 1."""
    if factor == 1.0:
        return constants
    parts = {part.name: getattr(constants, part.name) for part in fields(Constants)}
    changed: dict[str, Any] = {
        name: part.slowed(factor) for name, part in parts.items() if isinstance(part, Efficiency | AllReduce)
    }
    return replace(constants, **changed)


def exchange_over(link_kind: str) -> AllReduce | None:
    """NCCL's all-gather and reduce-scatter over this kind of link (`hardware_specs/exchange/`), None if unmeasured."""
    folder = data_dir("hardware_specs") / "exchange"
    return read_named(folder, link_kind, AllReduce, "link.kind") if link_kind in names_in(folder) else None


def with_allreduce(constants: Constants, other: Constants) -> Constants:
    """`constants` with the all-reduce of `other`."""
    return replace(constants, allreduce=other.allreduce)
