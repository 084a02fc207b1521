"""Speculative decoding against published speedups: every row that the catalogues can price, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from validation import speculation_shapes, speculation_shares
from validation.checks import Check
from validation.speculation_predict import Errors, errors, fitted_length, predicted, vllm
from validation.speculation_rows import Row, left_out, read_rows, sources

LLAMA_EAGLE3 = {"CNN/DailyMail": 2.3285, "GSM8K": 2.3908, "InstructCoder": 2.3483, "ShareGPT": 2.2542}
"""Acceptance lengths at three drafts, walked through the released traces (acceptance.csv, gamma 3)."""
HELPS = 0.05
LEAST_H200 = {"llama31_70b": 2, "qwen3_235b_a22b": 4, "ling_flash_2": 2}
"""GPUs that a model of the bundle needs at least."""


def checks(data: Path | None) -> list[Check]:  # noqa: ARG001  (every suite is called alike)
    """All of the suite; every figure is in `measured/`."""
    rows = read_rows()
    usable = [row for row in rows if not left_out(row)]
    return [
        *llama_checks(usable),
        *chain_checks(usable),
        *tree_checks(usable),
        *moe_checks(usable),
        *bundle_checks(rows),
        *other_moe_checks(usable),
        *sign_checks(rows, usable),
        *speculation_shares.checks(vllm()),
        *speculation_shapes.checks(vllm()),
    ]


def _check(case: str, metric: str, value: float | None, bar: float | None, goal: float | None, n: int, note: str,
           at_least: bool = False) -> Check:  # fmt: skip
    return Check(
        suite="speculation", case=case, metric=metric, value=value, bar=bar, goal=goal, n=n, note=note,
        at_least=at_least,
    )  # fmt: skip


def llama_checks(rows: list[Row]) -> list[Check]:
    """Llama-3.1-8B with EAGLE-3 on one H100, nothing fitted to a speedup."""
    own = [r for r in rows if r.engine == "vLLM 0.10.1" and r.model == "llama31_8b" and r.drafter == "eagle3"]
    error = errors(own, lambda row: LLAMA_EAGLE3[row.dataset])
    by_set = {
        name: max(abs(e) for e, row in zip(error, own, strict=True) if row.dataset == name) for name in LLAMA_EAGLE3
    }
    note = (
        "acceptance lengths from the released traces; engine constants from step time shares; spread of lengths "
        "assumed. "
        "Worst by data set: "
        + ", ".join(f"{name} {100 * worst:.1f} %" for name, worst in by_set.items())
        + ". InstructCoder at batch 1: 2.02x with 2.35 tokens per round asks for a round of 1.16 plain steps, the same "
        "source's time shares say 1.34"
    )
    case = "Llama-3.1-8B + EAGLE-3, H100, batch 1-128"
    return [
        _check(case, "mean_abs_error", float(np.mean(np.abs(error))), 0.05, 0.03, len(own), note),
        _check(case, "worst_abs_error", float(np.max(np.abs(error))), 0.12, 0.08, len(own), ""),
    ]


def _with_length_at_one(rows: list[Row]) -> tuple[list[Row], Callable[[Row], float]]:
    """The rows beyond batch 1 whose pair has a row at batch 1, and their acceptance length fitted there."""
    fitted = {row.pair: fitted_length(row) for row in rows if row.batch == 1}
    return [row for row in rows if row.batch > 1 and row.pair in fitted], lambda row: fitted[row.pair]


def _worst(rows: list[Row], error: Errors) -> str:
    """The three rows with the largest errors."""
    order = np.argsort(-np.abs(error))[:3]
    named = [f"{rows[i].name} {rows[i].drafter} {rows[i].drafts} {rows[i].dataset} at {rows[i].batch:g}" for i in order]
    return "largest: " + ", ".join(f"{name} {100 * error[i]:+.0f} %" for name, i in zip(named, order, strict=True))


def chain_checks(rows: list[Row]) -> list[Check]:
    """The other dense chains on H100."""
    engines = {"vLLM 0.10.1", "SGLang 0.5.9"}
    own = [
        r for r in rows
        if r.kind == "dense" and r.gpu == "h100_sxm" and r.engine in engines and not r.tree
        and (r.model, r.drafter) != ("llama31_8b", "eagle3")
    ]  # fmt: skip
    scored, length = _with_length_at_one(own)
    error = errors(scored, length)
    groups: dict[str, list[float]] = {}
    for row, e in zip(scored, error, strict=True):
        groups.setdefault(f"{row.model} {row.drafter} {row.engine}", []).append(e)
    note = "one acceptance length per (pair, drafts, data set) fitted at batch 1. Mean error: " + ", ".join(
        f"{name} {100 * np.mean(np.abs(e)):.1f} %" for name, e in groups.items()
    )
    case = "other dense chains, H100"
    return [
        _check(case, "mean_abs_error", float(np.mean(np.abs(error))), 0.06, 0.04, len(scored), note),
        _check(case, "worst_abs_error", float(np.max(np.abs(error))), 0.15, 0.10, len(scored),
               f"{_worst(scored, error)}. Mean by data set: {_means(scored, error, 'dataset')}. With every drafter and "
               "engine InstructCoder's speedup at batch 1 stands above the line of its other batches, as it does for "
               "Llama-3.1-8B + EAGLE-3, so the length fitted there is too long"),
    ]  # fmt: skip


def _means(rows: list[Row], error: Errors, field: str) -> str:
    """Mean signed errors of the rows that share a field's value."""
    groups: dict[str, list[float]] = {}
    for row, e in zip(rows, error, strict=True):
        groups.setdefault(str(getattr(row, field)), []).append(float(e))
    return ", ".join(f"{name} {100 * np.mean(found):+.1f} %" for name, found in sorted(groups.items()))


def tree_checks(rows: list[Row]) -> list[Check]:
    """Qwen3-8B with trees of 6 and 21 nodes."""
    own = [r for r in rows if r.engine == "SGLang 0.5.9" and r.tree]
    scored, length = _with_length_at_one(own)
    error = errors(scored, length)
    clear = [(e, r) for e, r in zip(error, scored, strict=True) if abs(r.speedup - 1.0) > HELPS]
    wrong = [(e, r) for e, r in clear if (r.speedup * (1 + e) > 1.0) != (r.speedup > 1.0)]
    right = 1.0 - len(wrong) / len(clear)
    told = ", ".join(
        f"{r.drafts} nodes {r.dataset} at {r.batch:g} {r.speedup * (1 + e):.2f} for {r.speedup:.2f}" for e, r in wrong
    )
    case = "trees, Qwen3-8B + EAGLE-3, H100, SGLang"
    return [
        _check(case, "mean_abs_error", float(np.mean(np.abs(error))), 0.12, 0.08, len(scored),
               "acceptance length per (nodes, data set) fitted at batch 1; depth and children per node assumed. "
               f"{_flat_end([r for r in rows if r.engine == 'SGLang 0.5.9'])}"),
        _check(case, "sign_right", float(right), 1.0, 1.0, len(clear),
               f"rows beyond 5 % of 1. Wrong: {told or 'none'}. Mean by nodes: {_means(scored, error, 'drafts')}; the "
               "shapes are not published", at_least=True),
    ]  # fmt: skip


def _flat_end(rows: list[Row]) -> str:
    """What the measured speedups do from batch 64 to 128."""
    speedups = {(row.drafts, row.dataset, row.batch): row.speedup for row in rows}
    ratios = [s / speedups[drafts, name, 64.0] for (drafts, name, batch), s in speedups.items() if batch == 128.0]
    return (
        f"From batch 64 to 128 the measured speedups keep {min(ratios):.2f} to {max(ratios):.2f} of themselves, chains "
        "and trees alike, as if the batch hardly grew; how many requests were sent is not published"
    )


def moe_checks(rows: list[Row]) -> list[Check]:
    """Qwen3-30B-A3B with EAGLE-3 on 2 and 4 H100: the acceptance length is given, nothing is fitted."""
    own = [r for r in rows if r.model == "qwen3_30b_a3b" and r.gpu == "h100_sxm"]
    error = errors(own, lambda row: row.length)
    steady = [r for r in own if r.tensor_parallel == 4 and r.drafts == 15]
    ours = [predicted(r, r.length) for r in steady]
    curve = ", ".join(f"batch {r.batch:g}: {x:.2f} ({r.speedup:.2f})" for r, x in zip(steady, ours, strict=True))
    right = np.mean([(r.speedup * (1 + e) > 1) == (r.speedup > 1) for e, r in zip(error, own, strict=True)])
    case = "Qwen3-30B-A3B + EAGLE-3, H100"
    return [
        _check(case, "median_abs_error", float(np.median(np.abs(error))), 0.15, 0.08, len(own),
               f"acceptance length as published, routing with neighbours. 15-node tree, ours (theirs): {curve}. Step "
               "and round host times fitted on the six batch 1 rows on two GPUs, the eight on four held out. From "
               "batch 16 on the sources' plain throughput stands still near 1,100 tok/s, so their clients limit it"),
        _check(case, "sign_right", float(right), None, None, len(own), "all but one row lie below 1", at_least=True),
    ]  # fmt: skip


def bundle_checks(rows: list[Row]) -> list[Check]:
    """Ratios between draft shapes of one model and data set; the sources do not name the tensor parallelism."""
    from scipy.stats import spearmanr

    urls = sources()
    own = [r for r in rows if "spec_bundle" in urls[r.source] and r.model]
    firsts: dict[tuple[str, str, str], Row] = {}
    for row in own:
        firsts.setdefault((row.model, row.head, row.dataset), row)
    made = []
    for ranks in (1, 2, 4, 8):
        ours, theirs, absolute = [], [], []
        for row in own:
            first = firsts[row.model, row.head, row.dataset]
            if first is row or ranks < LEAST_H200.get(row.model, 1):
                continue
            speedup = predicted(replace(row, tensor_parallel=ranks), row.length)
            ours.append(speedup / predicted(replace(first, tensor_parallel=ranks), first.length))
            theirs.append(row.speedup / first.speedup)
            absolute.append(speedup / row.speedup - 1.0)
        rank = float(spearmanr(ours, theirs).statistic)
        note = (
            "speedup relative to the first shape of the same head and data set; models that fit; acceptance length as "
            f"published. Speedups themselves: median error {100 * np.median(np.abs(absolute)):.0f} %"
        )
        made.append(
            _check(f"SpecForge bundle, H200, TP {ranks}", "rank_correlation", rank, 0.8, 0.9, len(ours), note, True)
        )
    return made


def other_moe_checks(rows: list[Row]) -> list[Check]:
    """MoE rows of other models or GPUs, one acceptance length per (model, drafter) where none is given."""
    own = [r for r in rows if r.kind == "moe" and not (r.model == "qwen3_30b_a3b" and r.gpu == "h100_sxm")]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in own:
        groups.setdefault((row.model, row.drafter), []).append(row)
    error: list[float] = []
    for group in groups.values():
        if len(group) > 1:
            length = float(np.median([fitted_length(row) for row in group]))
            error += list(errors(group, lambda row, length=length: row.length or length))  # type: ignore[misc]
    value = float(np.median(np.abs(error))) if error else None
    alone = len(own) - len(error)
    note = f"Llama-4-Scout + n-gram on 8 B200; {alone} rows alone in their (model, drafter) left out: one fits one"
    return [_check("other MoE rows", "median_abs_error", value, 0.15, 0.10, len(error), note)]


def sign_checks(rows: list[Row], usable: list[Row]) -> list[Check]:
    """Whether SD helps: balanced accuracy over every priced row beyond 5 % of 1."""
    clear = [r for r in usable if abs(r.speedup - 1.0) > HELPS]
    near = len(usable) - len(clear)
    reasons = Counter(left_out(row) for row in rows if left_out(row))
    groups: dict[tuple[str, str, str, int, str], list[Row]] = {}
    for row in clear:
        groups.setdefault(row.pair, []).append(row)
    verdicts, missed = [], []
    for group in groups.values():
        first = min(group, key=lambda row: row.batch)
        for row in group:
            length = row.length or (fitted_length(first) if row is not first else 0.0)
            if length:
                ours = predicted(row, length)
                verdicts.append((row.kind, ours > 1.0, row.speedup > 1.0))
                if row.kind == "moe" and (ours > 1.0) != (row.speedup > 1.0):
                    missed.append(f"{row.drafts} drafts at batch {row.batch:g} {ours:.2f} for {row.speedup:.2f}")
    note = (
        f"acceptance length as published, else fitted to the smallest batch of (pair, drafts, data set), which is not "
        f"scored; base rate, always yes: {100 * np.mean([truth for _, _, truth in verdicts]):.1f} % right. Left out: "
        + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        + f", {near} within 5 % of 1, {len(clear) - len(verdicts)} used for the fit"
    )
    moe = [v for v in verdicts if v[0] == "moe"]
    return [
        _check("does SD help?", "balanced_accuracy", balanced(verdicts), 0.85, 0.95, len(verdicts), note, True),
        _check("does SD help? MoE", "balanced_accuracy", balanced(moe), 0.80, 0.95, len(moe),
               f"{_moe_note(moe)}. Wrong: {', '.join(missed)}", True),
    ]  # fmt: skip


def _moe_note(verdicts: list[tuple[str, bool, bool]]) -> str:
    yes = [ours for _, ours, theirs in verdicts if theirs]
    no = [not ours for _, ours, theirs in verdicts if not theirs]
    return f"{sum(yes)} of {len(yes)} yes and {sum(no)} of {len(no)} no told right: one yes more or less moves it far"


def balanced(verdicts: list[tuple[str, bool, bool]]) -> float | None:
    """Mean of the shares of yes and of no that are told right; None where one of them is absent."""
    shares = []
    for truth in (True, False):
        told = [ours == truth for _, ours, theirs in verdicts if theirs == truth]
        if not told:
            return None
        shares.append(float(np.mean(told)))
    return float(np.mean(shares))
