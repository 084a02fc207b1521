"""An Experiment: everything a run depends on, as a tree of plain dataclasses that are checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.cost.host import Engine
from sim.cost.pricing import CostModel
from sim.cost.routing import Routing
from sim.disaggregation import Disaggregation
from sim.hardware import Cluster
from sim.metrics.bands import MeasuredStep
from sim.metrics.measure import Measure
from sim.model import Model
from sim.serving.failures import Failures
from sim.serving.router import PrefixAware, Router
from sim.serving.scheduler import Scheduler
from sim.speculation.speculation import Speculation
from sim.workload import Workload


@dataclass(kw_only=True, slots=True)
class Experiment:
    """One simulation.

    Attributes:
        model: the target.
        cluster: GPUs, parallelism, replicas.
        further_clusters: more kinds of replicas behind the same router, numbered behind those of `cluster`.
        workload: the request stream.
        scheduler: batching policy of every rank.
        router: which replica a request goes to.
        disaggregation: the pool that prefills for the cluster's replicas, None where they do it themselves.
        failures: when replicas die and what becomes of their requests, None for never.
        speculation: how drafts are made and accepted, None without SD.
        engine: host-side constants of the engine version.
        routing: how tokens choose experts (no effect on a dense model).
        cost: where op times come from.
        measure: which part of the run counts, against which bounds, with which confidence.
        measured_step: a step whose time a run of one's own has shown (`moesd-sim calibrate run=`); narrows bands.
        seed: of every draw; one seed, one result.
        drop_oversized: leave out requests longer than the model's context and count them, instead of refusing the run.
        keep_steps: keep one row per step for `steps.parquet` and token latencies; without, only blocks of steps are
            kept.
    """

    model: Model
    cluster: Cluster
    workload: Workload
    scheduler: Scheduler
    router: Router
    engine: Engine
    routing: Routing
    cost: CostModel
    further_clusters: list[Cluster] = field(default_factory=list)
    disaggregation: Disaggregation | None = None
    failures: Failures | None = None
    speculation: Speculation | None = None
    measure: Measure = field(default_factory=Measure)
    measured_step: MeasuredStep | None = None
    seed: int = 0
    drop_oversized: bool = False
    keep_steps: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2^63), got {self.seed}")
        if self.routing.redundant_experts and not self.cluster.expert_parallel:
            raise ValueError(
                f"routing.redundant_experts has no effect without cluster.expert_parallel, got "
                f"{self.routing.redundant_experts}; set it to 0"
            )
        if self.cluster.pipeline_parallel > 1 and self.speculation is not None:
            raise ValueError(
                f"cluster.pipeline_parallel must be 1 with speculation, got {self.cluster.pipeline_parallel}: vLLM "
                "documents them as not composable (0.15); set speculation=off or use cluster.tensor_parallel"
            )
        if self.cluster.data_parallel > 1 and isinstance(self.router, PrefixAware):
            raise ValueError(
                "router PrefixAware must not stand before cluster.data_parallel > 1, got "
                f"{self.cluster.data_parallel}: a replica hands requests to its ranks by load, wherever their prefix "
                "is; choose another router"
            )
        if self.further_clusters:
            self._check_further()
        if self.failures is not None:
            self.failures.check(self.replicas)
        if self.disaggregation is not None:
            self.disaggregation.check(self.cluster, self.scheduler, self.router)
            if self.speculation is not None:
                self.disaggregation.check_drafter(self.speculation.drafter, self.model)
        speculation = self.speculation
        self.scheduler.check(1 if speculation is None else speculation.drafter.verify_tokens(self.drafts))

    @property
    def clusters(self) -> list[Cluster]:
        """Every kind of replica there is, in order of number; those that prefill for others come first."""
        prefill = [] if self.disaggregation is None else [self.disaggregation.prefill_side(self.cluster)]
        return [*prefill, self.cluster, *self.further_clusters]

    @property
    def replicas(self) -> int:
        """Those of all kinds."""
        return sum(cluster.replicas for cluster in self.clusters)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return sum(cluster.gpus for cluster in self.clusters)

    def _check_further(self) -> None:
        if self.disaggregation is not None:
            raise ValueError(
                "further_clusters must be empty with disaggregation: each of its pools has one kind of replica"
            )
        for cluster in self.clusters:
            if cluster.gpus_per_replica != cluster.tensor_parallel:
                raise ValueError(
                    "further_clusters need data_parallel = pipeline_parallel = 1 in every cluster (others are not "
                    f"modelled beside them), got {cluster.data_parallel} and {cluster.pipeline_parallel}"
                )

    @property
    def drafts(self) -> int:
        """Most draft tokens of a round; 0 without SD."""
        return self.speculation.length.most_drafts if self.speculation is not None else 0

    @property
    def label(self) -> str:
        """Model, and whether with SD."""
        return f"{self.model.name}, {f'SD {self.drafts}' if self.drafts else 'no SD'}"
