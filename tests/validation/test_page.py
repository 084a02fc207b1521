"""The page of figures is what the recorded figures say."""

from __future__ import annotations

from validation.checks import Check
from validation.page import FIGURES, PAGE, page, read_figures, record


def test_the_page_is_generated(root):
    assert (root / PAGE).read_text("utf-8") == page(read_figures(root / FIGURES))


def test_every_miss_says_why(root):
    assert not [check for check in read_figures(root / FIGURES) if check.passed is False and not check.note]


def test_a_suite_replaces_its_own_figures_alone(tmp_path):
    old = Check(suite="kernels", case="a", metric="m", value=1.0, bar=2.0)
    other = Check(suite="speed", case="b", metric="m", value=3.0, bar=2.0, note="slow | machine")
    record([old, other], tmp_path)
    record([Check(suite="kernels", case="c", metric="m", value=0.5)], tmp_path)
    figures = read_figures(tmp_path / FIGURES.name)
    assert [(check.case, check.passed) for check in figures] == [("c", None), ("b", False)]
    text = (tmp_path / PAGE.name).read_text()
    assert "**miss**" in text and "slow / machine" in text
