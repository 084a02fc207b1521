"""The report in a real browser: drawn, sorted, toggled, at two widths, without a word on the console."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from sim.report.html import write_report
from sim.report.runs import runs_of
from tests.report.deployments import pairs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (1200, 400)

# Each width is a frame, as a headless window has a least width of its own.
FRAMES = """<!DOCTYPE html><pre id="answer"></pre>
{frames}
<script>
addEventListener("load", async () => {{
  const answers = {{}};
  for (const frame of document.querySelectorAll("iframe")) answers[frame.width] = await frame.contentWindow.examine();
  document.getElementById("answer").textContent = JSON.stringify(answers);
}});
</script>"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)})")
    folder = tmp_path_factory.mktemp("report")
    page = write_report(pairs(), folder / "report.html")
    probe = Path(__file__).with_name("probe.js").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head><script>{probe}</script>", 1)
    page.write_text(text, encoding="utf-8")
    frames = "".join(f'<iframe src="report.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
    (folder / "frames.html").write_text(FRAMES.format(frames=frames), encoding="utf-8")
    return ask(browser, folder / "frames.html", folder / "profile")


def ask(browser: str, page: Path, profile: Path) -> dict[str, dict]:
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--allow-file-access-from-files", "--window-size=1300,2000", "--virtual-time-budget=30000",
        f"--user-data-dir={profile}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert answer, f"the page gave no answer: {done.stdout[:2000]} {done.stderr[-2000:]}"
    assert answer[1], f"the page did not finish: {done.stderr[-2000:]}"
    return json.loads(unescape(answer[1]))


@pytest.fixture(params=WIDTHS)
def answer(answers, request):
    return answers[str(request.param)]


def test_the_console_stays_silent_and_nothing_is_loaded(answer):
    assert answer["problems"] == []
    assert answer["loaded"] == []


def test_every_figure_is_drawn(answer):
    assert len(answer["all"]) == 12
    assert min(answer["all"].values()) > 0, answer["all"]


def test_hiding_a_run_takes_its_lines_from_every_figure_and_showing_it_brings_them_back(answer):
    assert answer["pressed"] == "false"
    fewer = {name for name, marks in answer["without"].items() if marks < answer["all"][name]}
    assert fewer == set(answer["all"]) - {"fig-phases"}
    assert answer["back"] == answer["all"]


def test_hiding_a_phase_takes_its_bars(answer):
    assert answer["phases"] < answer["all"]["fig-phases"]


def test_every_column_sorts_both_ways_with_gaps_last(answer):
    for column in (column for table in answer["tables"] for column in table):
        for click, state in zip(column["clicks"], ("ascending", "descending"), strict=True):
            assert click["state"] == state
            values = [float(value) for value in click["values"] if value is not None]
            assert values == sorted(values, reverse=state == "descending"), column["title"]
            assert click["values"][len(values) :] == [None] * (len(click["values"]) - len(values)), column["title"]
        assert column["marked"] == 1


def test_sorting_moves_the_rows(answer):
    labels = [run.label for run in runs_of(pairs())]
    for table in answer["tables"]:
        assert {tuple(click["order"]) for click in table[0]["clicks"]} == {tuple(labels), tuple(reversed(labels))}
        assert len({tuple(click["order"]) for column in table for click in column["clicks"]}) > 2


def test_the_page_never_scrolls_sideways(answer):
    assert answer["overflow"] <= 0
