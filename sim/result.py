"""What a run returns: its records as tables, its figures, its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.config import Experiment
from sim.cost.lines import TICKS_PER_S
from sim.cost.step import StepCost
from sim.files import write_whole
from sim.metrics.measure import measured
from sim.metrics.record import Recorder
from sim.metrics.summary import Times, block_phases, block_seconds, summarise
from sim.request import Requests
from sim.serving.kv import KvLayout

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A finished run.

    Attributes:
        experiment: what was run.
        requests: the requests that were served, in order of arrival.
        recorder: times and blocks, in ticks.
        cost: how steps were priced, at the longest draft length.
        cost_at: the same at any draft length.
        kv: the KV pool of each replica.
        events: SimPy events the run took.
    """

    experiment: Experiment
    requests: Requests
    recorder: Recorder
    cost: StepCost
    cost_at: Callable[[int], StepCost]
    kv: KvLayout
    events: int

    @property
    def label(self) -> str:
        """Model, and whether with SD."""
        return self.experiment.label

    def summary(self) -> dict[str, Any]:
        """Headline figures; the content of `summary.json`."""
        head = {"model": self.experiment.model.name, "drafts": self.experiment.drafts, "seed": self.experiment.seed}
        gpus = self.experiment.cluster.gpus
        figures = summarise(self.recorder, self.requests, self.cost, self.cost_at, self.step_seconds(), gpus)
        return head | figures | measured(self.experiment.measure, self.requests, self.recorder)

    def step_seconds(self) -> NDArray[np.float64]:
        """Duration of every step, blocks in order; of every block's mean step where steps were not kept."""
        blocks = self.recorder.blocks()
        if not self.recorder.keep_steps:
            return block_seconds(blocks) / blocks["steps"]
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
            }
        )

    def blocks_frame(self) -> pd.DataFrame:
        """One row per block of steps, with the seconds of each phase."""
        import pandas as pd

        blocks = self.recorder.blocks()
        frame = pd.DataFrame({name: column for name, column in blocks.items() if name not in {"start", "end"}})
        frame.insert(1, "start_s", blocks["start"] / TICKS_PER_S)
        frame.insert(2, "duration_s", block_seconds(blocks))
        for name, seconds in block_phases(blocks, self.cost_at).items():
            frame[f"{name}_s"] = seconds
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
