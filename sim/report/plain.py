"""A self-contained page around figures and text that are not about runs."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from sim.files import write_whole


def write_page(path: Path, title: str, body: str, figures: dict[str, dict[str, Any]]) -> Path:
    """Write the page, whole or not at all, and return where.

    Args:
        path: of the HTML file.
        title: heading, plain text.
        body: HTML with a `<div id="fig-NAME">` for every figure.
        figures: name -> plotly figure as plain data; colours may be custom properties of the style sheet.
    """
    from plotly.offline import get_plotlyjs

    found = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1></header>{body}\n</main>\n"
        f'<script type="application/json" id="figures">{found}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda whole: whole.write_text(text, encoding="utf-8", newline="\n"))
    return path


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
