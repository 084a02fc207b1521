"""The Hydra application behind `moesd-sim run`: the only module that imports hydra."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sim.catalogue import load_model
from sim.config import Experiment
from sim.cost.host import Engine
from sim.cost.pricing import Analytic, Auto, CostModel, Fitted, Table
from sim.cost.routing import Histogram, PowerLaw, Routing, TrainedGate, Uniform
from sim.data import data_dir
from sim.files import write_whole
from sim.hardware import Cluster, resolve
from sim.metrics.measure import Measure
from sim.model import Model, with_sparsity
from sim.serving.chunked import ChunkedPrefill, DecodePriority, PriorityClasses, ShortestFirst
from sim.serving.prefill_first import IterationLevel, PrefillFirst, SglangPrefillFirst, StaticBatch
from sim.serving.router import LeastRequests, RoundRobin, Router
from sim.serving.scheduler import Scheduler
from sim.speculation.acceptance import (
    BetaRate,
    ConstantRate,
    DriftingRate,
    MeanLength,
    RatePerDepth,
    RatePerGroup,
    RatePerPosition,
    Recorded,
)
from sim.speculation.batch_length import DisableAbove, MostTokens, TableByBatch
from sim.speculation.cascade import Cascade
from sim.speculation.draft import DraftModel
from sim.speculation.eagle import Eagle
from sim.speculation.length import Fixed
from sim.speculation.mtp import Mtp
from sim.speculation.ngram import NGram
from sim.speculation.parallel import Medusa, ParallelDraft
from sim.speculation.request_length import Oracle, StepUpDown
from sim.speculation.speculation import Speculation
from sim.speculation.tree import RatePerRank
from sim.workload import Workload
from sim.workload.cancelling import Cancelling
from sim.workload.classes import Classes
from sim.workload.closed_loop import ClosedLoop
from sim.workload.formats import AzureTrace, BurstGptTrace, MooncakeTrace, SimpleTrace
from sim.workload.mix import Mix
from sim.workload.servegen import ServeGen
from sim.workload.sessions import Sessions
from sim.workload.synthetic import Synthetic

OPTIONS: dict[str, tuple[type, ...]] = {
    "workload": (
        Synthetic,
        AzureTrace,
        MooncakeTrace,
        BurstGptTrace,
        ServeGen,
        SimpleTrace,
        ClosedLoop,
        Sessions,
        Cancelling,
        Classes,
        Mix,
    ),
    "scheduler": (
        ChunkedPrefill,
        DecodePriority,
        ShortestFirst,
        PriorityClasses,
        PrefillFirst,
        SglangPrefillFirst,
        StaticBatch,
        IterationLevel,
    ),
    "router": (LeastRequests, RoundRobin),
    "routing": (Uniform, PowerLaw, TrainedGate, Histogram),
    "cost": (Auto, Fitted, Table, Analytic),
    "speculation/drafter": (DraftModel, Eagle, Mtp, NGram, Medusa, ParallelDraft),
    "speculation/length": (Fixed, TableByBatch, DisableAbove, MostTokens, Cascade, StepUpDown, Oracle),
    "speculation/acceptance": (
        ConstantRate,
        RatePerDepth,
        RatePerPosition,
        MeanLength,
        BetaRate,
        DriftingRate,
        RatePerGroup,
        RatePerRank,
        Recorded,
    ),
}
"""Every policy class by configuration group; a YAML of the group names its schema as `<snake_case_class>_schema`."""


@dataclass(kw_only=True, slots=True)
class Sparsity:
    """Changes to every MoE layer of the model; null leaves a figure as it is."""

    experts: int | None = None
    experts_per_token: int | None = None
    expert_width: int | None = None
    shared_width: int | None = None


@dataclass(kw_only=True, slots=True)
class Job:
    """The tree that Hydra composes: an Experiment for each of `models`, or for `model`."""

    models: list[str] = field(default_factory=list)
    model: Model | None = None
    sparsity: Sparsity = field(default_factory=Sparsity)
    cluster: Cluster
    workload: Workload
    scheduler: Scheduler
    router: Router
    speculation: Speculation | None = None
    engine: Engine
    routing: Routing
    cost: CostModel
    measure: Measure = field(default_factory=Measure)
    seed: int = 0
    drop_oversized: bool = False
    keep_steps: bool = True

    def targets(self) -> list[Model]:
        """The models to compare."""
        if self.model is None and not self.models:
            raise ValueError("models must name at least one target, got none; or choose one by model=")
        chosen = [self.model] if self.model is not None else [load_model(name, "models") for name in self.models]
        changes = {name: getattr(self.sparsity, name) for name in Sparsity.__slots__}
        return [with_sparsity(m, **changes) if any(v is not None for v in changes.values()) else m for m in chosen]

    def experiments(self) -> list[Experiment]:
        """Every target without and with speculation."""
        from sim.job import twins

        shared = {name: getattr(self, name) for name in Job.__slots__ if name not in {"models", "model", "sparsity"}}
        return [twin for target in self.targets() for twin in twins(Experiment(model=target, **shared))]


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _store_schemas() -> None:
    store = ConfigStore.instance()
    store.store(name="job_schema", node=Job)
    for group, classes in OPTIONS.items():
        for option in classes:
            store.store(group=group, name=f"{_snake(option.__name__)}_schema", node=option)


def _run(config: DictConfig) -> None:
    """One job. What the user got wrong ends a single run with one line; a sweep goes on to its next job."""
    try:
        _simulate(config)
    except ValueError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(f"moesd-sim: {error}")


def _simulate(config: DictConfig) -> None:
    """Simulate, print, write, and say where."""
    from rich.console import Console

    from sim.job import compare
    from sim.table import comparison_table

    console = Console()
    folder = Path(HydraConfig.get().runtime.output_dir)
    with console.status("") as status:
        job = OmegaConf.to_object(config)
        assert isinstance(job, Job)
        comparison = compare(job.experiments(), lambda label: status.update(f"simulating {label}"))
        status.update("writing the report")
        comparison.save(folder)
        write_whole(folder / "config.yaml", lambda path: path.write_text(OmegaConf.to_yaml(config, resolve=True)))
    if comparison.results:
        console.print(comparison_table(comparison.summaries()))
    for label, reason in comparison.infeasible.items():
        console.print(f"[bold]{label} cannot run:[/bold] {reason}")
    gpu, link = resolve(job.cluster)
    console.print(f"Step times: {job.cost.note(gpu, link if job.cluster.tensor_parallel > 1 else None)}.", style="dim")
    console.print(str(folder), soft_wrap=True)


def compose(*overrides: str) -> list[Experiment]:
    """The experiments that `moesd-sim` would run with these overrides, in its order.

    Raises:
        ValueError: a value is out of bounds; the message names the field.
        hydra.errors.HydraException: an unknown group, option or field.
    """
    _store_schemas()
    with hydra.initialize_config_dir(config_dir=str(data_dir("conf")), version_base="1.3"):
        job = OmegaConf.to_object(hydra.compose("config", overrides=list(overrides)))
    assert isinstance(job, Job)
    return job.experiments()


def main() -> None:
    """Compose the configuration from `sys.argv` and run the job."""
    _store_schemas()
    application: Any = hydra.main(version_base="1.3", config_path=str(data_dir("conf")), config_name="config")(_run)
    application()
