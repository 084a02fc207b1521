"""An Experiment: everything a run depends on, as a tree of plain dataclasses that are checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.cost.host import Engine
from sim.cost.pricing import CostModel
from sim.cost.routing import Routing
from sim.hardware import Cluster
from sim.metrics.measure import Measure
from sim.model import Model
from sim.serving.router import Router
from sim.serving.scheduler import Scheduler
from sim.speculation.speculation import Speculation
from sim.workload import Workload


@dataclass(kw_only=True, slots=True)
class Experiment:
    """One simulation.

    Attributes:
        model: the target.
        cluster: GPUs, parallelism, replicas.
        workload: the request stream.
        scheduler: batching policy of every rank.
        router: which replica a request goes to.
        speculation: how drafts are made and accepted, None without SD.
        engine: host-side constants of the engine version.
        routing: how tokens choose experts (no effect on a dense model).
        cost: where op times come from.
        measure: which part of the run counts, against which bounds, with which confidence.
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
    speculation: Speculation | None = None
    measure: Measure = field(default_factory=Measure)
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
        speculation = self.speculation
        self.scheduler.check(1 if speculation is None else speculation.drafter.verify_tokens(self.drafts))

    @property
    def drafts(self) -> int:
        """Most draft tokens of a round; 0 without SD."""
        return self.speculation.length.most_drafts if self.speculation is not None else 0

    @property
    def label(self) -> str:
        """Model, and whether with SD."""
        return f"{self.model.name}, {f'SD {self.drafts}' if self.drafts else 'no SD'}"
