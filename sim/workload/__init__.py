"""Workloads: where the request stream of a run comes from."""

from sim.workload.base import Workload as Workload
from sim.workload.context import clip_to_context as clip_to_context
from sim.workload.formats import AzureTrace as AzureTrace
from sim.workload.formats import BurstGptTrace as BurstGptTrace
from sim.workload.formats import MooncakeTrace as MooncakeTrace
from sim.workload.formats import SimpleTrace as SimpleTrace
from sim.workload.lengths import Lengths as Lengths
from sim.workload.servegen import ServeGen as ServeGen
from sim.workload.synthetic import Synthetic as Synthetic
from sim.workload.traces import Trace as Trace
