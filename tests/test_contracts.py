"""Rules of the house that no linter knows: cheap imports, public names that stay reachable, files of readable size."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import walk_packages

import pytest

import sim

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MODULES = [module.name for module in walk_packages(sim.__path__, "sim.") if module.name != "sim.__main__"]


def loaded_by(statements: str, root: Path, cwd: Path) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `statements`, beyond those it starts with."""
    code = f"import sys; before = set(sys.modules)\n{statements}\nprint(*sorted(set(sys.modules) - before))"
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy(root: Path, tmp_path: Path) -> None:
    loaded = loaded_by("import sim; sim.__version__", root, tmp_path)
    assert "sim" in loaded
    assert not loaded & {"numpy", "simpy", "hydra", "omegaconf", "pandas", "scipy", "plotly", "importlib.metadata"}


def test_importing_every_module_leaves_the_heavy_packages_to_their_functions(root: Path, tmp_path: Path) -> None:
    modules = [name for name in MODULES if not name.startswith("sim.profiling")]
    loaded = loaded_by(f"import {', '.join(modules)}", root, tmp_path)
    assert set(modules) <= loaded
    assert not loaded & {"pandas", "scipy", "plotly", "pyarrow", "torch"}


@pytest.mark.parametrize("name", sim.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(sim, name)
    assert isinstance(value, str) or value.__doc__


def test_no_public_name_is_a_submodule() -> None:
    """Importing `sim.x` binds the module to `sim.x`, so a public function x would turn into its module on the way."""
    assert not {f"sim.{name}" for name in sim.__all__} & set(MODULES)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'simulat'.*simulate"):
        sim.simulat  # noqa: B018


def python_files(root: Path) -> Iterator[Path]:
    for folder in ("sim", "validation", "tests"):
        yield from sorted((root / folder).glob("**/*.py"))


def test_files_stay_readable(root: Path) -> None:
    lines = {path.relative_to(root): path.read_text("utf-8").count("\n") for path in python_files(root)}
    assert not {path: n for path, n in lines.items() if n > MAX_FILE_LINES}


def test_functions_stay_readable(root: Path) -> None:
    too_long = [
        f"{path.relative_to(root)}:{node.lineno} {node.name}"
        for path in python_files(root)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not too_long
