"""Kinds of replicas: of one rank, of ranks in lockstep, of pipeline stages."""

from __future__ import annotations

from typing import Any

from sim.metrics.record import Recorder
from sim.serving.clock import Environment
from sim.serving.group import RankGroup
from sim.serving.group_replica import GroupReplica
from sim.serving.pipeline import Pipeline
from sim.serving.pipeline_replica import PipelineReplica
from sim.serving.rank import Rank
from sim.serving.rank_replica import RankReplica
from sim.serving.replica import Replica

Unit = Rank | RankGroup | Pipeline
"""What a replica puts on the clock."""

AnyReplica = Replica[Any, Any]


def replica_of(
    env: Environment, number: int, unit: Unit, recorder: Recorder, *, settle: bool, counts_tokens: bool
) -> AnyReplica:
    """The replica of `unit`; arguments as for Replica."""
    if isinstance(unit, RankGroup):
        return GroupReplica(env, number, unit, recorder, settle=settle)
    if isinstance(unit, Pipeline):
        return PipelineReplica(env, number, unit, recorder, settle=settle, counts_tokens=counts_tokens)
    return RankReplica(env, number, unit, recorder, settle=settle, counts_tokens=counts_tokens)
