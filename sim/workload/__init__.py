"""Workloads: where the request stream of a run comes from."""

from sim.workload.base import Workload as Workload
from sim.workload.cancelling import Cancelling as Cancelling
from sim.workload.classes import Classes as Classes
from sim.workload.closed_loop import ClosedLoop as ClosedLoop
from sim.workload.context import clip_to_context as clip_to_context
from sim.workload.curve import RateCurve as RateCurve
from sim.workload.durations import Durations as Durations
from sim.workload.formats import AzureTrace as AzureTrace
from sim.workload.formats import BurstGptTrace as BurstGptTrace
from sim.workload.formats import MooncakeTrace as MooncakeTrace
from sim.workload.formats import SimpleTrace as SimpleTrace
from sim.workload.lengths import Lengths as Lengths
from sim.workload.mix import Mix as Mix
from sim.workload.prompts import SystemPrompts as SystemPrompts
from sim.workload.servegen import ServeGen as ServeGen
from sim.workload.sessions import Sessions as Sessions
from sim.workload.synthetic import Synthetic as Synthetic
from sim.workload.traces import Trace as Trace
