"""The report: one self-contained HTML page over the runs of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sim.files import write_whole
from sim.report import headline, tables
from sim.report.activation import activation_figure
from sim.report.bands import bands_table
from sim.report.figures import all_figures
from sim.report.plot import Figure
from sim.report.runs import Run, runs_of
from sim.report.why import why_figure, why_table
from sim.result import Result

TITLE = "LLM serving with and without speculative decoding"

_CAPTIONS = {
    "ttft": "Time to first token since arrival. A curve further left is faster; read p90 where it crosses 90%.",
    "tpot": "Time per output token after the first, per request. The gap between a solid line and its dashed twin is "
    "what "
    "SD gains or loses.",
    "e2e": "Arrival to last token, per request. It also depends on how many tokens a request asks for.",
    "why": "Every bar is a factor on the speedup in mean TPOT, and all of them multiply to what was achieved. They "
    "reprice the steps of the run without SD, one change after the other from left to right: drafts rejected, drafts "
    "past the end of an output, what rounds take longer by cause, prompts, which SD does not shorten; at last the "
    "batches, queue and KV pool of the run with SD.",
    "activation": "Distinct experts that a step activates per MoE layer, by the tokens it computes. The larger a "
    "marker, the more time was spent in such steps; filled with SD, open without.",
    "speedup": "Tokens per second with SD over those without, all sequences decoding at the run's mean context and "
    "with its acceptance length. Above 1 SD pays; the dot is the run's mean batch, the shaded band what step times may "
    "be off by. Steps in the curve are batches padded to a CUDA graph.",
    "efficiency": "Time of a target pass over 1 token per sequence over that of a verification pass. Near 1 the "
    "drafts are "
    "verified almost for free.",
    "experts": "Distinct experts that a step loads per MoE layer. Where verification (solid) loads more than plain "
    "decoding "
    "(dotted), drafts cost memory traffic; where both touch all experts, they no longer do.",
    "phases": "Where the engine's busy time goes. What drafting and verification take is what fewer steps must win "
    "back.",
    "throughput": "Output tokens per second, in bins. Where it lies below the demand, requests pile up.",
    "running": "Requests that take part in steps, all replicas together.",
    "waiting": "Requests that have arrived and do not run, preempted ones included. A growing queue means overload.",
}

_SECTIONS = (
    ("Why: from the ideal to the achieved speedup", ("why",)),
    ("Latency", ("ttft", "tpot", "e2e")),
    ("Over time", ("throughput", "running", "waiting")),
    ("Time by phase", ("phases",)),
    ("By batch size", ("speedup", "efficiency", "experts")),
    ("Activated experts", ("activation",)),
)

_ABSENT = {"By batch size": "No run with SD: nothing to compare here."}
"""What stands in a section without figures; the others are left out."""


def write_report(
    results: Sequence[Result], path: Path, title: str = TITLE, bands: Mapping[str, Any] | None = None
) -> Path:
    """Write the page, whole or not at all, and return where; same results, same bytes.

    Args:
        results: runs of a study.
        path: where to.
        title: of the page.
        bands: by label of a result, as `sim.bands.RunBands.ends` has them.

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("results must hold at least one run to report, got none")
    text = _page(runs_of(results, bands), title)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda whole: whole.write_text(text, encoding="utf-8", newline="\n"))
    return path


def _page(runs: Sequence[Run], title: str) -> str:
    from plotly.offline import get_plotlyjs

    figures = all_figures(runs) | {
        name: figure
        for name, figure in (("why", why_figure(runs)), ("activation", activation_figure(runs)))
        if figure["data"]
    }
    body = (
        f"<header><h1>{escape(title)}</h1>{headline.setup(runs)}</header>"
        f'<section aria-label="Findings" class="findings">{headline.findings(runs)}</section>'
        f"<section><h2>Runs</h2>{tables.throughput_table(runs)}{tables.latency_table(runs)}"
        f"{tables.speculation_table(runs)}{bands_table(runs)}"
        '<p class="note">A heading sorts its column. Quantiles are over requests; ITL is the gap between two emissions '
        "of a request, of which each brings the acceptance length of tokens.</p></section>"
        f"{_legend(runs)}{_figure_sections(figures)}{why_table(runs)}"
        f"<section><h2>Requests left out, ended early or sent again</h2>{tables.unserved(runs)}</section>"
        f"<section><h2>Configuration</h2>{tables.configuration(runs)}</section>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="figures">{_json(figures)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _figure_sections(figures: dict[str, Figure]) -> str:
    parts = []
    for title, names in _SECTIONS:
        drawn = [name for name in names if name in figures]
        if not drawn:
            if title in _ABSENT:
                parts.append(f"<section><h2>{title}</h2><p>{_ABSENT[title]}</p></section>")
            continue
        cards = "".join(
            f'<figure class="{name}"><div id="fig-{name}" style="height:{figures[name]["layout"]["height"]}px"></div>'
            f"<figcaption>{_CAPTIONS[name]}</figcaption></figure>"
            for name in drawn
        )
        parts.append(f'<section><h2>{title}</h2><div class="figures of-{len(drawn)}">{cards}</div></section>')
    return "".join(parts)


def _legend(runs: Sequence[Run]) -> str:
    """One legend for all figures: a button per run."""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-run="{i}">{tables.swatch(run)}{escape(run.label)}</button>'
        for i, run in enumerate(runs)
    )
    return f'<nav class="legend" aria-label="Runs shown in the figures">{buttons}</nav>'


def _json(figures: dict[str, Figure]) -> str:
    """JSON that no text in it can end the script element of."""
    return json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
