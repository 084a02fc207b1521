"""The bands of every run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sim.report import numbers
from sim.report.runs import Run
from sim.report.tables import swatch

_ROWS = (
    ("output tokens per s", "throughput", "output_tokens_per_s"),
    ("TTFT p50", "ttft_s", "p50"),
    ("TPOT mean", "tpot_s", "mean"),
    ("TPOT p99", "tpot_s", "p99"),
    ("E2E mean", "e2e_s", "mean"),
    ("TPOT speedup", "speedup", "tpot"),
)


def bands_table(runs: Sequence[Run]) -> str:
    """Low and high end of the headline figures of every run; nothing where no run has bands."""
    if not any(run.bands for run in runs):
        return ""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title, _, _ in _ROWS)
    body = "".join(
        f'<tr><th scope="row">{swatch(run)}{escape(run.label)}</th>'
        + "".join(f'<td class="number">{_ends(run, figure, name)}</td>' for _, figure, name in _ROWS)
        + "</tr>"
        for run in runs
    )
    level = next(run.bands["level"] for run in runs if run.bands)
    return (
        f'<div class="scroll" role="region" aria-label="Bands" tabindex="0"><table id="table-bands">'
        f"<caption>Bands: each holds its figure with a probability of {level:.0%}</caption>"
        f'<thead><tr><th scope="col">Run</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="note">From the errors of step times by op family; the acceptance of drafts and the workload '
        "are taken as given.</p>"
    )


def _ends(run: Run, figure: str, name: str) -> str:
    ends = run.bands.get(figure, {}).get(name)
    if ends is None:
        return numbers.MISSING
    if figure.endswith("_s"):
        unit, per_s = numbers.latency_unit(ends)
        return f"{numbers.text(ends[0] * per_s)} to {numbers.text(ends[1] * per_s)} {unit}"
    return f"{numbers.text(ends[0])} to {numbers.text(ends[1])}"
