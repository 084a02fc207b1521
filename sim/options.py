"""Every policy that the command line offers, by configuration group."""

from __future__ import annotations

from sim.cost.moesd_forward import Moesd
from sim.cost.pricing import Analytic, Auto, Fitted, Table
from sim.cost.routing import Histogram, PowerLaw, TrainedGate, Uniform
from sim.disaggregation import Disaggregation
from sim.serving.chunked import ChunkedPrefill, DecodePriority, PriorityClasses, ShortestFirst
from sim.serving.failures import PlannedFailures, RandomFailures
from sim.serving.prefill_first import IterationLevel, PrefillFirst, SglangPrefillFirst, StaticBatch
from sim.serving.router import LeastRequests, LeastTokens, PowerOfTwo, PrefixAware, Random, RoundRobin
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
from sim.speculation.tree import RatePerRank
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
    "router": (LeastRequests, RoundRobin, Random, PowerOfTwo, LeastTokens, PrefixAware),
    "disaggregation": (Disaggregation,),
    "failures": (RandomFailures, PlannedFailures),
    "routing": (Uniform, PowerLaw, TrainedGate, Histogram),
    "cost": (Auto, Fitted, Table, Analytic, Moesd),
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
