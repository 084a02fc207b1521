"""The README's Python blocks run as a reader would run them: in order, in one file, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

FENCED = re.compile(r"^(?P<indent> *)```(?:python|py)\b[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)


def script_of(markdown: str) -> str:
    """All Python blocks as one script; each line keeps its number, so that a traceback points into the README."""
    script = ""
    for block in FENCED.finditer(markdown):
        first_line = markdown.count("\n", 0, block.start("code"))
        script += "\n" * (first_line - script.count("\n")) + dedent(block["code"])
    return script


def test_blocks_keep_their_order_and_their_lines() -> None:
    markdown = (
        "# Title\n```bash\nls\n```\n```python\na = 1\n```\n- item\n\n  ```python title=x\n  if a:\n      b = 2\n  ```\n"
    )
    assert script_of(markdown).split("\n") == ["", "", "", "", "", "a = 1", "", "", "", "", "if a:", "    b = 2", ""]


def test_readme_blocks_run(root: Path, tmp_path: Path) -> None:
    script = script_of((root / "README.md").read_text("utf-8"))
    assert script, "the README shows no Python"
    path = tmp_path / "readme.py"
    path.write_text(script, "utf-8")
    command = [sys.executable, "-W", "error", str(path)]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
