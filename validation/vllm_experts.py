"""Experts of one rank under expert parallelism: fitted constants against measured MoE blocks of the RTX PRO 6000.

The rows (`llmservingsim/profiles_v1_upstream_2026-09`, Qwen3-30B-A3B, vLLM 0.28) time the share of one rank: so many
tokens enter, K / ep of each token's experts are its own, so many distinct ones are hit. The constants were fitted on
whole blocks (ep 1) of the profile of vLLM 0.19, never on a share. That rows of experts elsewhere cost their zeros
(`GroupedGemm.absent_rows`) was added after these rows had been looked at; its size follows from the kernels.

The file of DeepSeek-V3.2 is left out: its blocks beat the memory bandwidth, so its experts are not the model's.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sim import load_model
from sim.cost.constants import read_constants
from sim.cost.work import GroupedGemm, Peaks
from sim.hardware import read_gpu
from validation.checks import Check
from validation.vllm_runs import ROOT, Floats

FILE = "profiles_v1_upstream_2026-09/Qwen3-30B-A3B-Instruct-2507__bf16__tp1__moe.csv"
FEW_TOKENS = 64
GPU, MODEL = "rtx_pro_6000", "qwen3_30b_a3b"


def checks(data: Path) -> list[Check]:
    """Mean error of the block, for each degree of expert parallelism."""
    path = data / ROOT / FILE
    if not path.is_file():
        return []
    with path.open() as file:
        rows = np.array([[float(value) for value in row.values()] for row in csv.DictReader(file)])
    made = []
    for ranks in np.unique(rows[:, 0]).astype(int).tolist():
        _, tokens, distinct, micros = rows[rows[:, 0] == ranks].T
        errors = predicted_s(ranks, tokens, distinct) / (micros * 1e-6) - 1.0
        few = np.abs(errors[tokens < FEW_TOKENS]).mean()
        note = (
            f"vLLM 0.28; signed {errors.mean():+.1%}; below {FEW_TOKENS} tokens {few:.1%}, where what a share costs "
            "whatever its size counts most"
        )
        made.append(
            Check(
                suite="vllm", case=f"RTX PRO 6000, Qwen3-30B-A3B, experts of 1 of {ranks} ranks",
                metric="moe_block_rel_error", value=float(np.abs(errors).mean()), n=len(errors), note=note,
            )
        )  # fmt: skip
    return made


def predicted_s(ranks: int, tokens: Floats, distinct: Floats) -> Floats:
    """Seconds of one layer's experts on one of `ranks` GPUs."""
    model, gpu, constants = load_model(MODEL, "model"), read_gpu(GPU), read_constants(f"{GPU}_vllm")
    ffn = next(run.ffn for run in model.layers if run.ffn.kind == "moe")
    rows = tokens * ffn.experts_per_token / ranks
    absent = tokens * ffn.experts_per_token - rows
    work = GroupedGemm(distinct, rows, model.hidden, ffn.expert_width, ffn.matrices, absent_rows=absent)
    peaks = Peaks(gpu.flops_per_s("bf16"), gpu.memory_bandwidth_bytes_per_s, gpu.sm_count)
    return np.asarray(constants.experts.experts_s(work, peaks), dtype=np.float64)
