"""The Hydra application behind `moesd-sim run`: the only module that imports hydra."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sim.catalogue import load_model
from sim.config import Experiment
from sim.cost.host import Engine
from sim.cost.pricing import CostModel
from sim.cost.routing import Routing
from sim.data import data_dir
from sim.disaggregation import Disaggregation
from sim.files import write_whole
from sim.hardware import Cluster, resolve
from sim.metrics.measure import Measure
from sim.model import Model, with_sparsity
from sim.options import OPTIONS
from sim.overrides import refuse_without_effect, told
from sim.run_fit.calibration import RunCalibration, read_run_calibration
from sim.serving.ending import DeadlockError
from sim.serving.failures import Failures
from sim.serving.router import Router
from sim.serving.scheduler import Scheduler
from sim.speculation.speculation import Speculation
from sim.workload import Workload

INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended: 128 + SIGINT."""


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
    further_clusters: list[Cluster] = field(default_factory=list)
    disaggregation: Disaggregation | None = None
    failures: Failures | None = None
    speculation: Speculation | None = None
    engine: Engine
    routing: Routing
    cost: CostModel
    calibration: str = ""
    measure: Measure = field(default_factory=Measure)
    seed: int = 0
    drop_oversized: bool = False
    keep_steps: bool = True
    bands: bool = True

    def targets(self) -> list[Model]:
        """The models to compare."""
        if self.model is None and not self.models:
            raise ValueError("models must name at least one target, got none; or choose one by model=")
        chosen = [self.model] if self.model is not None else [load_model(name, "models") for name in self.models]
        names = [model.name for model in chosen]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"models must differ in their names, got {twice[0]} {len(twice)} times")
        changes = {name: getattr(self.sparsity, name) for name in Sparsity.__slots__}
        return [with_sparsity(m, **changes) if any(v is not None for v in changes.values()) else m for m in chosen]

    def experiments(self) -> list[Experiment]:
        """Every target without and with speculation."""
        from sim.job import twins

        own = {"models", "model", "sparsity", "calibration", "bands"}
        shared = {name: getattr(self, name) for name in Job.__slots__ if name not in own}
        made = [Experiment(model=target, **shared) for target in self.targets()]
        found = self.run_calibration()
        return [twin for one in made for twin in twins(one if found is None else found.applied(one))]

    def run_calibration(self) -> RunCalibration | None:
        """The constants that `calibration` names.

        Raises:
            ValueError: no such file, or `cost.kernel_factor` beside it.
        """
        if not self.calibration:
            return None
        if self.cost.kernel_factor != 1.0:
            raise ValueError("cost.kernel_factor has no effect beside calibration, which holds one; remove one")
        return read_run_calibration(Path(self.calibration))


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _store_schemas() -> None:
    store = ConfigStore.instance()
    store.store(name="job_schema", node=Job)
    for group, classes in OPTIONS.items():
        for option in classes:
            store.store(group=group, name=f"{_snake(option.__name__)}_schema", node=option)


def _run(config: DictConfig) -> None:
    """One job. What the user got wrong ends a single run with one line; a sweep goes on to its next job.

    Ctrl-C, which ended the program at once while it started, ends it with what is done.
    """
    if current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _simulate(config)
    except (ValueError, OSError, DeadlockError) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(f"moesd-sim: {error}")
    except KeyboardInterrupt:
        print("moesd-sim: interrupted", file=sys.stderr)  # noqa: T201 - the command line speaks here
        sys.exit(INTERRUPTED)


def job_of(config: DictConfig) -> Job:
    """The composed tree as a checked job.

    Raises:
        ValueError: a value that an option needs is missing, or one is out of bounds; the message names the field.
    """
    unknown = sorted(str(name) for name in config if name not in Job.__slots__)
    if unknown:
        raise ValueError(f"{unknown[0]} must be one of {', '.join(Job.__slots__)}")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} must be given: {missing[0]}=... (what it takes is said in the option's YAML)")
    try:
        job = OmegaConf.to_object(config)
    except AttributeError as error:  # a field that + added
        raise ValueError(f"{error}; moesd-sim --cfg job lists every field") from error
    assert isinstance(job, Job)
    return job


def _simulate(config: DictConfig) -> None:
    """Simulate, print, write, and say where."""
    from rich.console import Console

    from sim.job import compare
    from sim.table import bands_table, comparison_table

    console = Console()
    folder = Path(HydraConfig.get().runtime.output_dir)
    with console.status("") as status:
        job = job_of(config)
        experiments = job.experiments()
        comparison = compare(experiments, lambda label: status.update(f"simulating {label}"), bands=job.bands)
        status.update("writing the report")
        summaries = comparison.save(folder)
        write_whole(folder / "config.yaml", lambda path: path.write_text(OmegaConf.to_yaml(config, resolve=True)))
    if comparison.results:
        console.print(comparison_table(summaries))
        bands = bands_table(summaries)
        if bands is not None:
            console.print(bands)
            console.print("Bands: errors of step times by op family; acceptance is taken as given.", style="dim")
    for label, reason in comparison.infeasible.items():
        console.print(f"[bold]{label} cannot run:[/bold] {reason}")
    if comparison.partial:
        left = f"; not run: {'; '.join(comparison.not_run)}" if comparison.not_run else ""
        console.print(f"[bold]Interrupted[/bold]: figures are of what was done by then{left}", soft_wrap=True)
    notes = (_note(job.cost, cluster) for cluster in experiments[0].clusters)
    for note in dict.fromkeys(notes):
        console.print(f"Step times: {note}.", style="dim")
    calibration = job.run_calibration()
    if calibration is not None:
        for model in job.targets():
            console.print(f"{model.name}: {calibration.note(model.name, job.cluster.tensor_parallel)}.", style="dim")
    console.print(str(folder), soft_wrap=True)
    if comparison.partial:
        sys.exit(INTERRUPTED)


def _note(cost: CostModel, cluster: Cluster) -> str:
    """Where the step times of a kind of replica come from."""
    gpu, link = resolve(cluster)
    return cost.note(gpu, link if cluster.gpus_per_replica > 1 else None)


def compose(*overrides: str) -> list[Experiment]:
    """The experiments that `moesd-sim` would run with these overrides, in its order.

    Raises:
        ValueError: a value is out of bounds, or an unknown group, option or field; the message names it.
    """
    _store_schemas()
    refuse_without_effect(overrides)
    with hydra.initialize_config_dir(config_dir=str(data_dir("conf")), version_base="1.3"):
        try:
            config = hydra.compose("config", overrides=list(overrides))
        except HydraException as error:
            raise ValueError(told(error)) from error
    return job_of(config).experiments()


def main() -> None:
    """Compose the configuration from `sys.argv` and run the job; what the user got wrong ends it with one line."""
    _store_schemas()
    # Else Hydra prints errors itself, over several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    application: Any = hydra.main(version_base="1.3", config_path=str(data_dir("conf")), config_name="config")(_run)
    try:
        refuse_without_effect(sys.argv[1:])
        application()
    except HydraException as error:
        sys.exit(f"moesd-sim: {told(error)}")
    except (ValueError, OSError, DeadlockError) as error:
        sys.exit(f"moesd-sim: {error}")
