"""What a GPU, a link and a cluster are: published figures with their sources, read from `hardware_specs/`.

A new GPU is one YAML file, or `cluster.gpu_overrides` on top of a known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from sim.data import data_dir, names_in, read_named

DTYPES = ("fp32", "bf16", "fp8", "fp4", "int8")
LINK_KINDS = ("nvlink", "pcie", "infiniband", "xgmi")

# Wide enough for any what-if, narrow enough to catch a figure given in GB, TFLOPS or MiB.
_GPU_BOUNDS: dict[str, tuple[float, float]] = {
    "memory_bytes": (1e9, 1e13),
    "memory_bandwidth_bytes_per_s": (1e10, 1e15),
    "sm_count": (1, 1e5),
    "l2_bytes": (1e5, 1e11),
    "max_gpus_per_node": (1, 1024),
    "power_w": (1, 1e5),
}
_PEAK_BOUNDS = (1e12, 1e18)
_INTEGERS = ("memory_bytes", "sm_count", "l2_bytes", "max_gpus_per_node")


@dataclass(kw_only=True, slots=True)
class Gpu:
    """One GPU by its published peaks; checked when built, never changed.

    Attributes:
        name: its file in `hardware_specs/gpu/`.
        vendor, architecture: nvidia or amd; ampere, ada, hopper, blackwell, cdna3, cdna4.
        memory_bytes: what nvidia-smi or rocm-smi calls total, not the round figure of the datasheet; the CUDA runtime
            itself sees 0.4 to 2 % less.
        memory_bandwidth_bytes_per_s: peak.
        peak_flops_per_s: dense peak per dtype; fp32 outside the tensor cores, all others in them with fp32 accumulation
            (int8: int32). A dtype the tensor cores lack is absent.
        sm_count: streaming multiprocessors (AMD: compute units).
        l2_bytes: level-2 cache of the whole GPU.
        link: its link to the other GPUs of a node, a file in `hardware_specs/link/`.
        max_gpus_per_node: GPUs that `link` joins at most.
        power_w: board power limit.
        sources: field -> where the figure comes from, for every number; `peak_flops_per_s.fp4` beside or instead of a
            common `peak_flops_per_s`.

    Raises:
        ValueError: a figure out of bounds, bf16 missing, or a number without source.
    """

    name: str
    vendor: str
    architecture: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    peak_flops_per_s: dict[str, float]
    sm_count: int
    l2_bytes: int
    link: str
    max_gpus_per_node: int
    power_w: float
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bounds in _GPU_BOUNDS.items():
            _check_range(f"gpu {self.name}: {name}", getattr(self, name), *bounds, "SI units, whole bytes")
        for dtype, peak in self.peak_flops_per_s.items():
            _check_known(f"gpu {self.name}: a dtype of peak_flops_per_s", dtype, DTYPES)
            _check_range(f"gpu {self.name}: peak_flops_per_s.{dtype}", peak, *_PEAK_BOUNDS, "FLOP/s, not TFLOP/s")
        self.flops_per_s("bf16")
        self._check_sources()

    def _check_sources(self) -> None:
        peaks = [f"peak_flops_per_s.{dtype}" for dtype in self.peak_flops_per_s]
        for key in self.sources:
            _check_known(f"gpu {self.name}: a key of sources", key, (*_GPU_BOUNDS, "peak_flops_per_s", *peaks, "link"))
        needed = [*_GPU_BOUNDS, *([] if self.sources.get("peak_flops_per_s", "").strip() else peaks)]
        missing = [name for name in needed if not self.sources.get(name, "").strip()]
        if missing:
            raise ValueError(f"gpu {self.name}: sources must say where {', '.join(missing)} comes from")

    def flops_per_s(self, dtype: str) -> float:
        """Dense peak for `dtype`; a ValueError that lists the dtypes it has where the tensor cores lack it."""
        _check_known(f"dtype on {self.name}", dtype, self.peak_flops_per_s)
        return self.peak_flops_per_s[dtype]

    def ridge_flops_per_byte(self, dtype: str) -> float:
        """FLOP per byte of memory traffic at which the roofline of `dtype` turns from memory- to compute-bound."""
        return self.flops_per_s(dtype) / self.memory_bandwidth_bytes_per_s


@dataclass(kw_only=True, slots=True)
class Link:
    """How GPUs talk to each other.

    Attributes:
        name: its file in `hardware_specs/link/`.
        kind: nvlink, pcie, infiniband or xgmi.
        bandwidth_bytes_per_s: peak per GPU in one direction (vendors print both directions together).
        latency_s: typical time of one hop for a tiny message, without launch or software set-up.
        max_gpus: GPUs it can join (a bridge: 2); 0: as many as the node holds.
        sources: field -> where the figure comes from, for bandwidth and latency.

    Raises:
        ValueError: unknown kind, a figure out of bounds or without source.
    """

    name: str
    kind: str
    bandwidth_bytes_per_s: float
    latency_s: float
    max_gpus: int = 0
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_known(f"link {self.name}: kind", self.kind, LINK_KINDS)
        _check_range(
            f"link {self.name}: bandwidth_bytes_per_s", self.bandwidth_bytes_per_s, 1e8, 1e14, "bytes, not bits"
        )
        _check_range(f"link {self.name}: latency_s", self.latency_s, 1e-9, 1e-2, "seconds")
        _check_range(f"link {self.name}: max_gpus", self.max_gpus, 0, 1024, "0: as many as the node holds")
        for name in ("bandwidth_bytes_per_s", "latency_s"):
            if not self.sources.get(name, "").strip():
                raise ValueError(f"link {self.name}: sources must say where {name} comes from")


@dataclass(kw_only=True, slots=True)
class Cluster:
    """The GPUs a model is served on: `replicas` engines of one or more GPUs each (Hydra group `cluster`).

    Attributes:
        gpu: a name of `known_gpus()`.
        gpu_overrides: field -> figure on top of it, for example `peak_flops_per_s.bf16` (see `read_gpu`).
        tensor_parallel: GPUs the weights are cut over.
        data_parallel: attention ranks of a replica, of `tensor_parallel` GPUs each: every one has attention weights, a
            scheduler, a queue and a KV pool of its own, the routed experts are shared over the GPUs of all, and all
            step together (vLLM: data_parallel_size of a MoE model; SGLang: enable_dp_attention).
        expert_parallel: experts lie whole on the GPUs instead of being cut (vLLM: enable_expert_parallel).
        pipeline_parallel: stages that the layers are cut into; as many batches are in flight.
        pipeline_link: between stages; "" is that between GPUs.
        replicas: independent engines behind the router.
        link: between the GPUs of a replica, or of a stage; "" is the GPU's own.
        memory_utilization: share of GPU memory the engine may take (vLLM: gpu_memory_utilization).
        kv_blocks: KV blocks per rank; 0 computes them from what memory is left.
        block_tokens: tokens per KV block.

    Raises:
        ValueError: a field out of bounds, or one without effect.
    """

    gpu: str
    gpu_overrides: dict[str, float] = field(default_factory=dict)
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    pipeline_parallel: int = 1
    pipeline_link: str = ""
    replicas: int = 1
    link: str = ""
    memory_utilization: float = 0.9
    kv_blocks: int = 0
    block_tokens: int = 16

    def __post_init__(self) -> None:
        _check_range("cluster.tensor_parallel", self.tensor_parallel, 1, 1024, "GPUs per rank")
        _check_range("cluster.data_parallel", self.data_parallel, 1, 1024, "attention ranks per replica")
        _check_range("cluster.replicas", self.replicas, 1, 4096, "engines")
        _check_range("cluster.memory_utilization", self.memory_utilization, 0.01, 1, "a share of GPU memory")
        _check_range("cluster.kv_blocks", self.kv_blocks, 0, 10**9, "0 computes them from memory")
        _check_range("cluster.block_tokens", self.block_tokens, 1, 4096, "tokens per KV block")
        _check_range("cluster.pipeline_parallel", self.pipeline_parallel, 1, 1024, "stages per replica")
        if self.pipeline_parallel > 1 and self.data_parallel > 1:
            raise ValueError(
                f"cluster.pipeline_parallel must be 1 where cluster.data_parallel is {self.data_parallel}, got "
                f"{self.pipeline_parallel}: pipelines of attention ranks in lockstep are not modelled"
            )
        if self.pipeline_parallel == 1 and self.pipeline_link:
            raise ValueError(
                f'cluster.pipeline_link must be "" where cluster.pipeline_parallel is 1 (no effect), got '
                f"{self.pipeline_link!r}"
            )
        if self.gpus_per_replica == 1 and (self.expert_parallel or self.link):
            name, off = ("expert_parallel", "false") if self.expert_parallel else ("link", '""')
            value = getattr(self, name)
            raise ValueError(f"cluster.{name} must be {off} where a replica has one GPU (no effect), got {value!r}")

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel * self.data_parallel * self.pipeline_parallel

    @property
    def parallelism(self) -> str:
        """How a replica is cut, in words."""
        parts = [f"tensor parallel {self.tensor_parallel}"]
        parts += [f"data parallel {self.data_parallel}"] if self.data_parallel > 1 else []
        parts += ["expert parallel"] if self.expert_parallel else []
        parts += [f"pipeline parallel {self.pipeline_parallel}"] if self.pipeline_parallel > 1 else []
        return ", ".join(parts)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.gpus_per_replica


def known_gpus() -> list[str]:
    """Names of the catalogued GPUs, sorted."""
    return names_in(data_dir("hardware_specs") / "gpu")


@cache
def read_link(name: str, setting: str = "cluster.link") -> Link:
    """The catalogued link; an unknown name, which came from `setting`, is a ValueError that lists the known ones."""
    return read_named(data_dir("hardware_specs") / "link", name, Link, setting)


def read_gpu(name: str, overrides: Mapping[str, float] | None = None) -> Gpu:
    """The catalogued GPU, some figures replaced.

    Args:
        name: a name of `known_gpus()`.
        overrides: field -> figure in SI units; `peak_flops_per_s.<dtype>` for one dtype, which may be new to the GPU.

    Raises:
        ValueError: unknown name, unknown field (lists the known ones) or a figure out of bounds.
    """
    gpu = _catalogued(name)
    known = (*_GPU_BOUNDS, *(f"peak_flops_per_s.{dtype}" for dtype in DTYPES))
    for key, value in (overrides or {}).items():
        _check_known("a key of cluster.gpu_overrides", key, known)
        gpu = _override(gpu, key, value)
    return gpu


@cache
def _catalogued(name: str) -> Gpu:
    return read_named(data_dir("hardware_specs") / "gpu", name, Gpu, "cluster.gpu")


def resolve(cluster: Cluster) -> tuple[Gpu, Link]:
    """The GPU and the link a cluster names; a ValueError where they cannot join a replica's GPUs."""
    gpu = read_gpu(cluster.gpu, cluster.gpu_overrides)
    link = read_link(cluster.link or gpu.link)
    most = min(gpu.max_gpus_per_node, link.max_gpus or gpu.max_gpus_per_node)
    near = cluster.gpus_per_replica // (cluster.pipeline_parallel if cluster.pipeline_link else 1)
    if near > most:
        names = ("tensor_parallel", "data_parallel", "pipeline_parallel")
        sizes = [f"cluster.{name}" for name in names if getattr(cluster, name) > 1]
        raise ValueError(
            f"{' x '.join(sizes)} must be <= {most} ({gpu.name} over {link.name}), got {near}; "
            "more GPUs can serve as cluster.replicas, or as stages over a cluster.pipeline_link"
        )
    return gpu, link


def _override(gpu: Gpu, key: str, value: float) -> Gpu:
    sources = {**gpu.sources, key: "cluster.gpu_overrides"}
    if key in _GPU_BOUNDS:
        if key in _INTEGERS:
            if not float(value).is_integer():
                raise ValueError(f"cluster.gpu_overrides.{key} must be a whole number, got {value!r}")
            value = int(value)
        return replace(gpu, **{key: value}, sources=sources)  # type: ignore[arg-type]
    dtype = key.removeprefix("peak_flops_per_s.")
    return replace(gpu, peak_flops_per_s={**gpu.peak_flops_per_s, dtype: value}, sources=sources)


def _check_range(name: str, value: float, low: float, high: float, remedy: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}] ({remedy}), got {value!r}")


def _check_known(name: str, value: str, known: tuple[str, ...] | Mapping[str, object]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
