"""What a run returns: its records as tables, its figures, its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.config import Experiment
from sim.cost.lines import TICKS_PER_S
from sim.cost.step import StepCost
from sim.files import write_whole
from sim.metrics.ends import ends
from sim.metrics.kinds import ReplicaKind, phases_by_kind
from sim.metrics.measure import Measure, measured
from sim.metrics.record import Recorder
from sim.metrics.summary import Times, block_seconds, block_shape, in_seconds, summarise
from sim.metrics.totals import BlockTotals
from sim.metrics.transfers import transfer_columns, transfers
from sim.request import Requests
from sim.serving.kv import KvLayout

if TYPE_CHECKING:
    import pandas as pd


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a simulation that had begun.

    Attributes:
        result: its beginning, marked `partial`.
    """

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A run that has ended, or the beginning of one that was interrupted.

    Attributes:
        experiment: what was run.
        requests: the requests that were served, in order of arrival.
        recorder: times and blocks, in ticks.
        cost: how steps were priced, at the longest draft length; of the replicas that decode, where others prefill.
        cost_at: the same at any draft length.
        kv: the KV pool of each replica.
        events: SimPy events the run took.
        partial: it was interrupted; figures are of what had happened by then.
        kinds: replicas that are not like those of the cluster, or not priced so.
    """

    experiment: Experiment
    requests: Requests
    recorder: Recorder
    cost: StepCost
    cost_at: Callable[[int], StepCost]
    kv: KvLayout
    events: int
    partial: bool = False
    kinds: tuple[ReplicaKind, ...] = ()
    _summary: dict[str, Any] = field(init=False, default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """Model, and whether with SD."""
        return self.experiment.label

    def summary(self) -> dict[str, Any]:
        """Headline figures; the content of `summary.json`."""
        if not self._summary:
            self._summary.update(self._summarised())
        return deepcopy(self._summary)

    def _summarised(self) -> dict[str, Any]:
        head = {"model": self.experiment.model.name, "drafts": self.experiment.drafts, "seed": self.experiment.seed}
        gpus = self.experiment.gpus
        totals = self._totals()
        figures = summarise(self.recorder, self.requests, self.cost, self.cost_at, self.step_seconds(), gpus, totals)
        measure = Measure() if self.partial else self.experiment.measure
        return (
            head
            | {"partial": self.partial}
            | figures
            | {"transfer": transfers(self.recorder)}
            | ends(self.recorder)
            | measured(measure, self.requests, self.recorder)
        )

    def phases(self, blocks: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float64]]:
        """Seconds of every block by phase, each block at the price of its own kind."""
        return phases_by_kind(blocks, self.cost_at, self.kinds)

    def _totals(self) -> BlockTotals:
        totals = BlockTotals()
        for blocks in self.recorder.parts():
            decodes = np.ones(len(blocks["replica"]), np.bool_)
            for kind in self.kinds:
                decodes &= ~(kind.has(blocks) & kind.prefills)
            experts = self.cost.target.distinct_experts(block_shape(blocks)) * np.ones(len(decodes))
            totals.add(blocks, self.phases(blocks), experts, decodes)
        return totals

    def step_seconds(self) -> NDArray[np.float64]:
        """Duration of every step, blocks in order; of every block's mean step where steps were not kept."""
        if not self.recorder.keep_steps:
            start, end, steps = (self.recorder.column(name) for name in ("start", "end", "steps"))
            return (end - start) / (TICKS_PER_S * steps)
        seconds: NDArray[np.float64] = self.recorder.step_ticks() / TICKS_PER_S
        return seconds

    def requests_frame(self) -> pd.DataFrame:
        """One row per request."""
        import pandas as pd

        times, recorder, requests = Times.of(self.recorder), self.recorder, self.requests
        return pd.DataFrame(
            {
                "request": np.arange(len(requests)),
                "group": np.asarray(requests.groups, dtype=object)[requests.group],
                "replica": recorder.replica,
                "arrival_s": times.arrival_s,
                "admitted_s": times.admitted_s,
                "first_token_s": times.first_token_s,
                "finish_s": times.finish_s,
                "ttft_s": times.ttft_s,
                "tpot_s": times.tpot_s(requests.output_tokens),
                "e2e_s": times.e2e_s,
                "prompt_tokens": requests.prompt_tokens,
                "output_tokens": requests.output_tokens,
                "rounds": recorder.rounds,
                "accepted_tokens": recorder.accepted,
                "preemptions": recorder.preemptions,
                "cancelled_s": in_seconds(recorder.cancelled),
                "lost_s": in_seconds(recorder.lost),
                "retries": recorder.retries,
                "wasted_tokens": recorder.wasted,
                **transfer_columns(recorder),
            }
        )

    def blocks_frame(self) -> pd.DataFrame:
        """One row per block of steps, with the seconds of each phase and the experts a step activates per MoE layer."""
        import pandas as pd

        blocks = self.recorder.blocks()
        frame = pd.DataFrame({name: column for name, column in blocks.items() if name not in {"start", "end"}})
        frame.insert(1, "start_s", blocks["start"] / TICKS_PER_S)
        frame.insert(2, "duration_s", block_seconds(blocks))
        for name, seconds in self.phases(blocks).items():
            frame[f"{name}_s"] = seconds
        frame["activated_experts"] = self.cost.target.distinct_experts(block_shape(blocks))
        return frame

    def steps_frame(self) -> pd.DataFrame:
        """One row per step; of a block of several steps only time, batch and context differ from row to row.

        Where steps were not kept, the blocks.
        """
        if not self.recorder.keep_steps:
            return self.blocks_frame()
        blocks = self.blocks_frame()
        frame = blocks.loc[blocks.index.repeat(blocks["steps"])].reset_index(names="block")
        seconds = self.step_seconds()
        within = np.cumsum(seconds)
        first = np.cumsum(blocks["steps"].to_numpy()) - blocks["steps"].to_numpy()
        before = np.repeat(within[first] - seconds[first], blocks["steps"])
        share = seconds / frame["duration_s"].to_numpy()
        frame["start_s"] += within - seconds - before
        frame["duration_s"] = seconds
        frame["context_tokens"] = self.recorder.step_contexts()
        for name in [name for name in frame.columns if name.endswith("_s") and name not in {"start_s", "duration_s"}]:
            frame[name] *= share
        frame["verify_tokens"] = frame["verify_tokens"] / frame["steps"]
        frame["emitted_tokens"] = frame["emitted_tokens"] * share
        return frame.drop(columns="steps")

    def save(self, folder: Path) -> None:
        """Write `summary.json`, `requests.parquet` and `steps.parquet`; each appears whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "requests.parquet", lambda path: self.requests_frame().to_parquet(path, index=False))
        write_whole(folder / "steps.parquet", lambda path: self.steps_frame().to_parquet(path, index=False))
        text = json.dumps(self.summary(), indent=2, allow_nan=False) + "\n"
        write_whole(folder / "summary.json", lambda path: path.write_text(text))

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page and return where."""
        from sim.report.html import write_report

        return write_report([self], Path(path))
