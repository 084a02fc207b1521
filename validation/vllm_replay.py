"""Replays of one recorded run at any scale of its kernels, and the statistics of what comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.cost.host import Engine
from sim.cost.profile import LayerProfile
from sim.cost.profile_lead import ExpectedLead
from sim.cost.profile_prices import ProfilePrices, no_lead
from validation.vllm_runs import ROOT, Replay, Run, Times, read_profile, read_run, serve

LAYERS = 32
MAX_CONTEXT_TOKENS = 1 << 20
FITS = 4
JITTER_S = 2e-3
JITTER_STEP = 2e-3

Rows = NDArray[np.bool_]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Player:
    """A run, the engine preset it is replayed with, and the profile of its GPU."""

    run: Run
    engine: Engine
    profile: LayerProfile

    @classmethod
    def of(cls, data: Path, gpu: str, engine: Engine) -> Player:
        """The recorded run of `gpu`, Llama-3.1-8B."""
        folder = data / ROOT / "profiles_v1" / gpu / "meta-llama" / "Llama-3.1-8B" / "bf16" / "tp1"
        return cls(read_run(data, gpu), engine, read_profile(folder, LAYERS))

    def prices(self, scale: float, *, leads: bool = True) -> ProfilePrices:
        """Step times, with the workload's leads or none."""
        requests, tokens = self.run.requests, self.run.deployment.max_batched_tokens
        lead = ExpectedLead(requests.prompt_tokens, requests.output_tokens) if leads else no_lead
        return ProfilePrices(self.profile, self.engine, LAYERS, tokens, MAX_CONTEXT_TOKENS, scale, lead)

    def replay(self, scale: float) -> Replay:
        """With prefix caching."""
        return serve(self.run.requests, self.run.deployment, self.prices(scale), self.engine, prefix_cache=True)

    def fitted_scale(self, rows: Rows) -> float:
        """The scale at which the mean TPOT of `rows` is the recorded one."""
        seen, scale = float(tpot_s(self.run, self.run.seen)[rows].mean()), 1.0
        for _ in range(FITS):
            scale *= seen / float(tpot_s(self.run, self.replay(scale).times)[rows].mean())
        return scale

    def jittered(self, seed: int, scale: float) -> tuple[Player, float]:
        """With every arrival up to `JITTER_S` later, and the scale up to `JITTER_STEP` off."""
        requests, random = self.run.requests, np.random.default_rng(seed)
        late_s = random.random(len(requests)) * JITTER_S
        moved = replace(requests, arrival_s=np.sort(requests.arrival_s + late_s))
        return replace(self, run=replace(self.run, requests=moved)), scale * (1.0 + JITTER_STEP * random.uniform(-1, 1))


def tpot_s(run: Run, times: Times) -> NDArray[np.float64]:
    """Time per output token after the first, of every request."""
    return (times.last_s - times.first_s) / (run.requests.output_tokens - 1)


def half_s(run: Run) -> float:
    """The middle of a run."""
    return float(run.seen.last_s.max()) / 2.0


def statistics(run: Run, times: Times, rows: Rows, unqueued: Rows, since_s: float) -> Figures:
    """The figures of the table for the requests of `rows`; seconds, and tokens per second from `since_s` on."""
    arrival = run.requests.arrival_s
    columns = {"tpot": tpot_s(run, times), "e2e": times.last_s - arrival, "ttft": times.first_s - arrival}
    found = {}
    for name, column in columns.items():
        kept = column[rows]
        found[f"{name}_mean"] = float(kept.mean())
        found |= {f"{name}_p{p}": float(np.percentile(kept, p)) for p in (50, 90, 99)}
    tokens = float(run.requests.output_tokens[rows].sum())
    found["throughput"] = tokens / (float(times.last_s[rows].max()) - since_s)
    found["ttft_unqueued_mean"] = float(columns["ttft"][unqueued].mean())
    return found
