"""`moesd-sim calibrate run=` on real vLLM 0.19 runs: constants from one or two load points, the others predicted.

Llama-3.2-1B on L4 and A10G (`llmservingsim/vllm_e2e_forks/lens_vllm_continuous`): streams of which 1, 2, 4, 8, 16 or 32
requests run at a time, four data sets; each gives its throughput. Llama-3.1-8B on RTX 4090 and RTX PRO 6000
(`vllm_e2e`): one overloaded run each, of which the mean TPOT is fitted and every other figure judged. Prices are those
of `cost=fitted`: bundled constants, no layer profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import ChunkedPrefill, Cluster, Experiment, LeastRequests, Lengths, Synthetic, Uniform, load_model
from sim.compare import Columns, Measured
from sim.cost.host import read_engine
from sim.cost.pricing import Fitted
from sim.request import Requests
from sim.run_fit import RunFit, fit_run
from validation.checks import Check
from validation.vllm_batches import DATASETS, STREAMS, read_batches
from validation.vllm_runs import ROOT, Run, read_run

SUITE = "run_fit"
STREAM_GPUS = {"L4": "l4", "A10G": "a10g"}
RUN_GPUS = {"RTX4090": "rtx4090", "RTXPRO6000": "rtx_pro_6000"}
SIZES = (1, 2, 4, 8, 16, 32)
FITTED = {"fitted on 1": (1,), "fitted on 1 and 32": (1, 32)}
THROUGHPUT = "output_tokens_per_s"
MAX_BATCHED_TOKENS = 8192
BAR, GOAL = 0.08, 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream(Measured):
    """A stream whose lengths and end alone were recorded."""

    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def requests(self) -> Requests:
        """A closed loop of the recorded concurrency."""
        n = len(self.prompt_tokens)
        return Requests(
            arrival_s=np.zeros(n), prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens,
            group=np.zeros(n, dtype=np.int32), concurrency=self.concurrency, source=self.source,
        )  # fmt: skip


def checks(data: Path | None) -> list[Check]:
    """Every figure; without `data` one line that says so."""
    if data is None or not (data / ROOT / "vllm_e2e_forks").is_dir():
        where = "needs --data with llmservingsim/vllm_e2e and vllm_e2e_forks"
        return [Check(suite=SUITE, case="all", metric="skipped", value=None, note=where)]
    return [*stream_checks(data), *run_checks(data)]


def stream_checks(data: Path) -> list[Check]:
    """L4 and A10G: error of the throughput of the load points that were not fitted."""
    made = []
    for gpu, (how, sizes) in product(STREAM_GPUS, FITTED.items()):
        fits = [fit_streams(data, gpu, dataset, sizes) for dataset in DATASETS]
        made.append(_check(f"{STREAM_GPUS[gpu]}, Llama-3.2-1B, {how}", [fit for fit in fits if fit is not None]))
    return made


def fit_streams(data: Path, gpu: str, dataset: str, sizes: Sequence[int]) -> RunFit | None:
    """The fit on the streams of `sizes`, the others predicted; None where nothing was recorded to predict."""
    order = (*sizes, *(size for size in SIZES if size not in sizes))
    streams = [stream for size in order if (stream := read_stream(data, gpu, dataset, size)) is not None]
    if len(streams) <= len(sizes):
        return None
    return fit_run(deployment("llama32_1b", STREAM_GPUS[gpu]), streams, len(sizes), (THROUGHPUT,))


def read_stream(data: Path, gpu: str, dataset: str, size: int) -> Stream | None:
    """One recorded stream; None where there is none."""
    batches = read_batches(data, gpu, dataset, size, STREAMS)
    if not batches:
        return None
    batch = batches[0]
    return Stream(
        source=f"{gpu} {dataset} x {size}", tool="vLLM, offline", side="engine", concurrency=size,
        stated={"throughput": {THROUGHPUT: float(batch.output_tokens.sum()) / batch.seen_s}},
        prompt_tokens=batch.prompt_tokens, output_tokens=batch.output_tokens,
    )  # fmt: skip


def deployment(model: str, gpu: str, kv_blocks: int = 0, **scheduler: int) -> Experiment:
    """vLLM 0.19 on one GPU, its workload never used."""
    settings = {"max_seqs": 128, "max_batched_tokens": MAX_BATCHED_TOKENS} | scheduler
    one = Lengths(kind="fixed", tokens=1)
    return Experiment(
        model=load_model(model, "model"),
        cluster=Cluster(gpu=gpu, **({"kv_blocks": kv_blocks} if kv_blocks else {})),
        workload=Synthetic(num_requests=1, arrival="poisson", rate_per_s=1.0, prompt=one, output=one),
        scheduler=ChunkedPrefill(**settings),
        router=LeastRequests(),
        engine=read_engine("vllm_0_19"),
        routing=Uniform(),
        cost=Fitted(),
    )


def run_checks(data: Path) -> list[Check]:
    """RTX 4090 and RTX PRO 6000: error of all figures but the one fitted."""
    made = []
    for name, gpu in RUN_GPUS.items():
        run = read_run(data, name)
        given = run.deployment
        served = deployment(
            "llama31_8b", gpu, given.kv_blocks, max_seqs=given.max_seqs, max_batched_tokens=given.max_batched_tokens
        )
        fit = fit_run(served, [measured(run)], metrics=("tpot_mean",))
        after = {key: value for key, value in fit.runs[0].after.items() if key != "tpot_mean"}
        errors = np.array([value.error for value in after.values()], dtype=np.float64)
        before = np.array([fit.runs[0].before[key].error for key in after], dtype=np.float64)
        note = f"mean over {len(after)} figures of the run, mean TPOT fitted; before {np.abs(before).mean():.1%}; "
        note += constants(fit) + "; " + ", ".join(f"{key} {value.error:+.1%}" for key, value in after.items())
        made.append(
            Check(suite=SUITE, case=f"{gpu}, Llama-3.1-8B, one run", metric="rel_error",
                  value=float(np.abs(errors).mean()), bar=BAR, goal=GOAL, n=len(after), note=note)
        )  # fmt: skip
    return made


def measured(run: Run) -> Measured:
    """A recorded run as a benchmark of the engine would have saved it."""
    requests, seen = run.requests, run.seen
    arrival = requests.arrival_s
    columns = Columns(
        arrival_s=arrival, prompt_tokens=requests.prompt_tokens, output_tokens=requests.output_tokens,
        ttft_s=seen.first_s - arrival, e2e_s=seen.last_s - arrival,
    )  # fmt: skip
    return Measured(source=run.gpu, tool="vLLM, AsyncLLM", side="engine", columns=columns)


def constants(fit: RunFit) -> str:
    """The fitted constants, in words."""
    return f"kernels x {fit.kernel_factor.value:.3f}, host {fit.step_host_s.value * 1e3:.2f} ms"


def _check(case: str, fits: list[RunFit]) -> Check:
    pairs = [
        (run.before[THROUGHPUT].error, run.after[THROUGHPUT].error)
        for fit in fits
        for run in fit.runs
        if not run.fitted
    ]
    before, after = np.array(pairs, dtype=np.float64).T
    note = (
        f"throughput of streams at other concurrencies; before {np.abs(before).mean():.1%}; signed "
        f"{after.mean():+.1%}, worst {after[np.abs(after).argmax()]:+.1%}; {'; '.join(constants(fit) for fit in fits)}"
    )
    return Check(suite=SUITE, case=case, metric="throughput_rel_error", value=float(np.abs(after).mean()), bar=BAR,
                 goal=GOAL, n=len(after), note=note)  # fmt: skip
