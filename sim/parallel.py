"""What a replica puts on the clock: one rank, attention ranks in lockstep, or a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sim.config import Experiment
from sim.cost.lockstep_times import LockstepTimes
from sim.cost.pipeline_times import PipelineTimes
from sim.cost.step import StepCost
from sim.hardware import read_link, resolve
from sim.metrics.record import Recorder
from sim.serving.group import RankGroup
from sim.serving.lockstep import LockstepRounds
from sim.serving.paths import Paths
from sim.serving.pipeline import Pipeline
from sim.serving.rank import Rank
from sim.serving.replicas import Unit
from sim.serving.setup import RankSetup


@dataclass(frozen=True, slots=True)
class Serving:
    """What all ranks of a run share: how they serve, the futures of the requests, and where they write."""

    setup: RankSetup
    paths: Paths
    recorder: Recorder

    def rank(self, number: int, rounds: LockstepRounds | None = None) -> Rank:
        """The rank of this number."""
        return Rank(number, self.setup, self.paths, self.recorder, rounds)


def unit_maker(
    experiment: Experiment, serving: Serving, costs: Callable[[int], StepCost], most_context_tokens: int
) -> Callable[[int], Unit]:
    """Makes what the replica of a number has; ranks and lanes are numbered through all replicas.

    Args:
        experiment: what is run.
        serving: what the ranks share.
        costs: the step cost at a draft length.
        most_context_tokens: most cached tokens of a rank.

    Raises:
        ValueError: ranks that would draft together, each with a draft length of its own.
    """
    cluster, most_tokens = experiment.cluster, experiment.scheduler.max_batched_tokens
    if cluster.pipeline_parallel > 1:
        return _pipelines(experiment, serving, costs(0), most_context_tokens)
    if cluster.data_parallel == 1:
        return serving.rank
    ranks = cluster.data_parallel
    _check_draft_length(experiment, serving.setup, costs(experiment.drafts))
    prices = LockstepTimes(costs, experiment.drafts, most_tokens, most_context_tokens)
    rounds = partial(LockstepRounds, serving.setup, serving.paths)
    return lambda number: RankGroup(serving.rank, rounds, ranks, number * ranks, prices, serving.recorder)


def _pipelines(
    experiment: Experiment, serving: Serving, cost: StepCost, most_context_tokens: int
) -> Callable[[int], Pipeline]:
    cluster, stages = experiment.cluster, experiment.cluster.pipeline_parallel
    link = read_link(cluster.pipeline_link) if cluster.pipeline_link else resolve(cluster)[1]
    prices = PipelineTimes(cost, stages, link, experiment.scheduler.max_batched_tokens, most_context_tokens)
    setup = replace(serving.setup, planned_ahead=0, max_block_steps=1)
    return lambda number: Pipeline(setup, serving.paths, serving.recorder, number * stages, stages, prices)


def _check_draft_length(experiment: Experiment, setup: RankSetup, cost: StepCost) -> None:
    speculation, draft = experiment.speculation, cost.draft
    if speculation is not None and draft is not None and draft.model.is_moe and setup.chooser is not None:
        raise ValueError(
            f"speculation.length {type(speculation.length).__name__} decides on each attention rank for itself, but "
            f"{draft.model.name} drafts on all of them together; use a length that is fixed or the request's own"
        )
