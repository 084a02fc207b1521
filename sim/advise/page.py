"""The advice as a self-contained HTML page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sim.advise.advice import Advice, DrafterReport
from sim.advise.contest import drafts_in_words
from sim.advise.document import exported_sglang, exported_vllm
from sim.advise.figures import Figure, gain_by_load, surface
from sim.advise.tables import print_advice, shown_drafts
from sim.advise.verdict import crossover, notes, paying, verdict
from sim.report.plain import write_page

if TYPE_CHECKING:
    from rich.console import Console


def write_advice_page(advice: Advice, path: Path, more: Callable[[Console], None] | None = None) -> Path:
    """Write the page and return where: verdict, gain against load, surfaces per drafter, what to paste, all tables.

    Args:
        advice: what to show.
        path: of the HTML file.
        more: prints what stands below the tables.
    """
    figures: dict[str, Figure] = {}
    parts = [f'<section class="findings"><article><p>{escape(verdict(advice))}</p></article></section>']
    if advice.curves:
        figures["gain-by-load"] = gain_by_load(advice)
        lines = "".join(f"<li>{escape(line)}.</li>" for line in crossover(advice))
        figure = _figure("gain-by-load", "Simulated on the same requests; above 1 SD pays.")
        parts.append(f"<section><h2>Gain against load</h2>{figure}<ul>{lines}</ul></section>")
    for number, report in enumerate(advice.drafters):
        parts.append(_drafter(advice, report, number, figures))
    parts.append(_paste(advice))
    parts.append(f"<section><h2>Tables</h2>{_pre(_as_text(advice, more))}</section>")
    parts.append(
        "<section><h2>Notes</h2><ul>" + "".join(f"<li>{escape(n)}.</li>" for n in notes(advice)) + "</ul></section>"
    )
    model = advice.contest.plain.experiment.model.name
    return write_page(path, f"Speculative decoding for {model}", "".join(parts), figures)


def _drafter(advice: Advice, report: DrafterReport, number: int, figures: dict[str, Figure]) -> str:
    name, surfaces = report.drafted.name, report.surfaces
    if surfaces is None:
        return f"<section><h2>{escape(name)}</h2><p>Cannot run: {escape(report.infeasible)}</p></section>"
    drafts = shown_drafts(advice, report)
    figures[f"even-{number}"] = surface(surfaces, surfaces.break_even[drafts], "tokens", 2)
    cards = _figure(
        f"even-{number}",
        f"Break-even acceptance length with {drafts_in_words(drafts)}: tokens per round from which SD pays. Empty: "
        "the batch does not fit into the KV pool.",
    )
    text = "Its acceptance is not known: compare your own acceptance length with the map."
    if report.drafted.acceptance_known:
        figures[f"best-{number}"] = surface(surfaces, surfaces.best_drafts, "drafts", 0)
        figures[f"gain-{number}"] = surface(surfaces, surfaces.best_speedup, "speedup", 2)
        cards += _figure(f"best-{number}", "Best draft length; 0: SD off.")
        cards += _figure(f"gain-{number}", "Speedup of decoding with it, no prompts beside.")
        text = f"Pays {paying(report)} at {advice.context_tokens:,} tokens of context."
    count = 3 if report.drafted.acceptance_known else 1
    return (
        f'<section><h2>{escape(name)}</h2><p>{escape(text)}</p><div class="figures of-{count}">{cards}</div></section>'
    )


def _paste(advice: Advice) -> str:
    vllm, sglang = exported_vllm(advice), exported_sglang(advice)
    blocks = []
    if vllm is not None:
        config = _pre(f"--speculative-config '{json.dumps(vllm)}'")
        blocks.append(f"<h3>vLLM</h3>{config}")
    if sglang is not None:
        blocks.append(f"<h3>SGLang</h3>{_pre(shlex.join(sglang))}")
    return f"<section><h2>To paste</h2>{''.join(blocks) or '<p>Nothing: SD off.</p>'}</section>"


def _pre(text: str) -> str:
    return f'<div class="scroll"><pre>{escape(text)}</pre></div>'


def _figure(name: str, caption: str) -> str:
    return (
        f'<figure><div id="fig-{name}" style="height:340px"></div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _as_text(advice: Advice, more: Callable[[Console], None] | None) -> str:
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    console = Console(file=text, width=120, force_terminal=False)
    print_advice(advice, console)
    if more is not None:
        more(console)
    return text.getvalue()
