"""The command line of the profiling runner: `python -m sim.profiling`, `moesd-sim profile`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from sim.catalogue import load_model
from sim.model import Model
from sim.profiling.attention import KERNELS as ATTENTION_KERNELS
from sim.profiling.attention import kernels_at as attention_kernels_at
from sim.profiling.attention import prefill_kernels_at
from sim.profiling.campaigns import CAMPAIGNS, Plan, cases_of
from sim.profiling.experts import KERNELS as EXPERT_KERNELS
from sim.profiling.experts import kernels_at as expert_kernels_at
from sim.profiling.grids import FULL, QUICK
from sim.profiling.layers import fusing_kernel
from sim.profiling.place import DTYPES, Place, find_place
from sim.profiling.runner import Options, run
from sim.profiling.transformer import layers_that_fit, unbuildable
from sim.profiling.workbench import Workbench

_TARGET_SHARE, _DRAFT_SHARE = 0.8, 0.15
"""Shares of the GPU's memory that the weights of whole steps may take; the rest is cache."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when all cases are in the file, 1 when some are left, 2 when it cannot start."""
    options = _parser().parse_args(arguments)
    try:
        return _profile(options)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"moesd-sim profile: {error}\n")
        return 2


def _profile(options: argparse.Namespace) -> int:
    place = find_place(options.device, options.dtype, options.gpu)
    torch.manual_seed(0)
    model = load_model(options.model, "model")
    draft_name = options.draft or model.draft
    draft = load_model(draft_name, "draft") if draft_name else None
    plan = _plan(options, place, model, draft)
    cases = []
    for campaign in options.campaign:
        found = cases_of(campaign, plan)
        cases += found
        if not found:
            sys.stderr.write(f"campaign {campaign}: {_why_empty(campaign, plan)}\n")
    sys.stderr.write(f"{len(cases)} cases on {place.gpu} ({place.device.type}, {place.dtype_name})\n")
    if options.list:
        sys.stdout.write("".join(f"{case.label()}\n" for case in cases))
        return 0
    bench = Workbench(place, model, draft, options.repeats, options.acceptance)
    how = Options(
        out=options.out,
        max_minutes=options.max_minutes,
        kernels=options.kernels,
        chrome_trace=options.chrome_trace,
        retry_failed=options.retry_failed,
    )
    outcome = run(cases, bench, how, sys.stderr)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.cases.items()) if count)
    sys.stdout.write(
        f"{counts or 'no cases'}{'' if outcome.finished else '; not finished, the same command goes on'}\n"
    )
    sys.stdout.write(f"{options.out}\n")
    return 0 if outcome.finished else 1


def _plan(options: argparse.Namespace, place: Place, model: Model, draft: Model | None) -> Plan:
    ranks: int = options.tensor_parallel
    if ranks < 1:
        raise ValueError(f"tensor_parallel must be >= 1, got {ranks}")
    for run_ in model.layers:
        if run_.attention.heads % ranks:
            raise ValueError(
                f"tensor_parallel must divide the {run_.attention.heads} heads of {model.name}, got {ranks}"
            )
    if not 0 <= options.layers <= model.layer_count:
        raise ValueError(f"layers must lie in [0, {model.layer_count}] (0: all that fit), got {options.layers}")
    head_dims = [run_.attention.head_dim for run_ in model.layers]
    return Plan(
        model=model,
        draft=draft,
        model_name=_trace_name(options.model, model),
        draft_name=_trace_name(options.draft or model.draft, draft),
        ranks=ranks,
        grid=QUICK if options.quick else FULL,
        dtype=place.dtype_name,
        attention=tuple(options.attention or attention_kernels_at(place, head_dims)[:1]),
        prefill=tuple(options.attention or prefill_kernels_at(place)[:1]),
        experts=tuple(options.experts or expert_kernels_at(place)[:1]),
        elementwise=fusing_kernel(place),
        layers=options.layers or layers_that_fit(model, place, ranks, _TARGET_SHARE),
        draft_layers=layers_that_fit(draft, place, 1, _DRAFT_SHARE) if draft else 0,
        buildable=not unbuildable(model),
        gpus=_gpus(place, ranks),
    )


def _gpus(place: Place, ranks: int) -> int:
    """GPUs for collectives: the ranks where they are there, all GPUs for one rank, as many processes on a CPU."""
    present = torch.cuda.device_count() if place.is_cuda else ranks
    return present if ranks == 1 else min(ranks, present)


def _trace_name(asked: str, model: Model | None) -> str:
    """The catalogue name, or the model's own where it came from a file."""
    return model.name if model is not None and asked.endswith(".json") else asked


def _why_empty(campaign: str, plan: Plan) -> str:
    reasons = {
        "target_step": unbuildable(plan.model),
        "experts": f"{plan.model.name} has no routed experts",
        "collectives": "one GPU only; give --tensor-parallel, or a machine with more",
        "draft_step": f"{plan.model.name} names no draft model; give --draft",
        "sd_round": unbuildable(plan.model)
        or f"needs --draft and --tensor-parallel 1, got {plan.draft_name or 'no draft'} and {plan.ranks}",
    }
    return reasons.get(campaign, f"no kernel here for the attention of {plan.model.name}")


def _words(known: Sequence[str], every: str = "") -> Callable[[str], list[str]]:
    """Parses comma-separated words out of `known`; the word `every` stands for all of them."""

    def parse(text: str) -> list[str]:
        names = list(known) if every and text == every else text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            listed = ", ".join([*([every] if every else []), *known])
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known: {listed}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moesd-sim profile", description="Time on this machine the ops that the cost model prices, for one model."
    )
    add = parser.add_argument
    add("--model", required=True, help="catalogue name, or path of a config.json")
    add("--draft", default="", help="draft model; default: the one the catalogue pairs with the model")
    add("--tensor-parallel", type=int, default=1, help="ranks; shapes are those of one rank")
    add(
        "--campaign",
        type=_words(tuple(CAMPAIGNS), every="all"),
        required=True,
        help=f"all, or some of {','.join(CAMPAIGNS)}",
    )
    add("--out", type=Path, required=True, help="kernel trace (Parquet); what it holds is not timed again")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--dtype", default="bf16", help=", ".join(DTYPES))
    add("--gpu", default="", help="name of the GPU in the trace; default: its file in hardware_specs/gpu")
    add(
        "--attention",
        type=_words(ATTENTION_KERNELS),
        default=[],
        help=f"kernels to time, of {','.join(ATTENTION_KERNELS)}",
    )
    add("--experts", type=_words(EXPERT_KERNELS), default=[], help=f"kernels to time, of {','.join(EXPERT_KERNELS)}")
    add("--layers", type=int, default=0, help="layers of whole target steps; default: all that fit")
    add("--acceptance", type=float, default=0.7, help="forced acceptance rate of SD rounds")
    add("--repeats", type=int, default=30, help="samples per case")
    add("--max-minutes", type=float, default=float("inf"), help="stop then; the same command goes on later")
    add("--quick", action="store_true", help="few sizes")
    add("--retry-failed", action="store_true", help="try again what failed for another reason than memory")
    add("--list", action="store_true", help="print the cases and run none")
    add("--kernels", action="store_true", help="name the kernels of every case")
    add("--chrome-trace", type=Path, default=None, help="folder for a Chrome trace per case")
    return parser
