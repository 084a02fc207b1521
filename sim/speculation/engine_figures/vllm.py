"""vLLM: the counters of `/metrics`, and the lines of its log.

Rounds without drafts (an n-gram miss, a batch above the threshold of a length policy) are in neither. Where rounds
differ in their drafts, the rates per position are shares of all rounds: they describe that mix, not longer drafts.
"""

from __future__ import annotations

import re

from sim.speculation.acceptance import MeanLength
from sim.speculation.engine_figures.base import EngineFigures, from_accepted_per_position

_SAMPLE = re.compile(r"^vllm:spec_decode_num_(\w+?)(?:_total)?(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ROUNDS, _DRAFTED, _PER_POSITION = "drafts", "draft_tokens", "accepted_tokens_per_pos"

_V1_LINE = re.compile(r"SpecDecoding metrics: (.*)")
_RATES = re.compile(r"Per-position acceptance rate: (\d\.\d+(?:, \d\.\d+)*)")
_DRAFTED_TOKENS = re.compile(r"Drafted: (\d+) tokens")
_V0_LINE = re.compile(
    r"Speculative metrics: .*System efficiency: (\d\.\d+), Number of speculative tokens: (\d+), .*"
    r"Number of draft tokens: (\d+)"
)

Counters = dict[tuple[str, int], float]


def read_vllm_metrics(text: str, before: str = "", model: str = "") -> EngineFigures:
    """The counters `vllm:spec_decode_num_*` of a `/metrics` page: unconditional rates per position.

    Args:
        text: the page, after the run; engines of a data-parallel server are summed.
        before: the page before the run, subtracted where given (counters run since the server started).
        model: `model_name` to read where the page holds several.

    Raises:
        ValueError: no such counters, several models and no choice, or counters that fell (a restart in between).
    """
    counters, start = _counters(text, model), _counters(before, model)
    positions = sorted(position for name, position in counters if name == _PER_POSITION)
    if not positions or (_ROUNDS, 0) not in counters:
        raise ValueError(
            "vLLM metrics: must hold vllm:spec_decode_num_drafts and vllm:spec_decode_num_accepted_tokens_per_pos, got "
            f"{', '.join(sorted({name for name, _ in counters})) or 'none of them'}; is speculative decoding on?"
        )
    grown = {address: value - start.get(address, 0.0) for address, value in counters.items()}
    if min(grown.values()) < 0:
        raise ValueError("vLLM metrics: counters must not fall between the two pages; did the server restart?")
    accepted = [grown[_PER_POSITION, position] for position in range(positions[-1] + 1)]
    return from_accepted_per_position(accepted, grown[_ROUNDS, 0], grown.get((_DRAFTED, 0), 0.0), "vLLM metrics")


def read_vllm_log(text: str) -> EngineFigures:
    """The log lines of vLLM.

    V1 ("SpecDecoding metrics: ...", one per interval) gives unconditional rates per position, weighted here by the
    rounds of each interval: drafted tokens over positions. V0 ("Speculative metrics: ...", running totals, so the last
    line counts) gives the system efficiency, which is sigma: tokens per round over drafts + 1; its "draft acceptance
    rate" counts matching drafts whether or not one before them was rejected, so it is not used.

    Raises:
        ValueError: no such line, or lines of different draft lengths.
    """
    intervals = [_interval(line) for line in _V1_LINE.findall(text)]
    known = [interval for interval in intervals if interval is not None]
    if known:
        lengths = {len(rates) for rates, _ in known}
        if len(lengths) > 1:
            raise ValueError(
                f"vLLM log: intervals must have one draft length, got {sorted(lengths)}; cut the log to one server run"
            )
        drafted = sum(tokens for _, tokens in known)
        drafts = lengths.pop()
        rounds = drafted / drafts
        accepted = [sum(rates[j] * tokens / drafts for rates, tokens in known) for j in range(drafts)]
        return from_accepted_per_position(accepted, rounds, drafted, "vLLM log")
    totals = _V0_LINE.findall(text)
    if not totals:
        raise ValueError(
            "vLLM log: must hold lines 'SpecDecoding metrics: ... Drafted: ... Per-position acceptance rate: ...' "
            "(or 'Speculative metrics: ... System efficiency: ...' of V0), got none"
        )
    efficiency, drafts, drafted = float(totals[-1][0]), int(totals[-1][1]), float(totals[-1][2])
    length = efficiency * (drafts + 1)
    return EngineFigures(
        figure="system efficiency",
        acceptance=MeanLength(length=length, drafts=drafts),
        acceptance_length=length,
        accepted_per_drafted=(length - 1.0) / drafts,
        rounds=drafted / drafts,
    )


def _counters(text: str, model: str) -> Counters:
    """(counter, position) -> value, summed over engines."""
    counters: Counters = {}
    models: set[str] = set()
    for line in text.splitlines():
        sample = _SAMPLE.match(line.strip())
        if sample is None or sample[1].endswith("created"):
            continue
        labels = dict(_LABEL.findall(sample[2] or ""))
        name = labels.get("model_name", "")
        if model and name != model:
            continue
        models.add(name)
        address = (sample[1], int(labels.get("position", 0)))
        counters[address] = counters.get(address, 0.0) + float(sample[3])
    if len(models) > 1:
        raise ValueError(f"vLLM metrics: must be of one model, got {', '.join(sorted(models))}; choose by `model`")
    return counters


def _interval(line: str) -> tuple[list[float], float] | None:
    """Rates per position and drafted tokens of one V1 line; None where it has no drafts or lacks either."""
    rates, drafted = _RATES.search(line), _DRAFTED_TOKENS.search(line)
    if rates is None or drafted is None or int(drafted[1]) == 0:
        return None
    return [float(rate) for rate in rates[1].split(", ")], float(drafted[1])
