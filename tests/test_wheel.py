"""The wheel, built from the source distribution and installed elsewhere, is the whole program."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

import sim

pytestmark = pytest.mark.skipif(find_spec("pip") is None, reason="the wheel is installed by pip, which is not here")


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """The wheel, the folder it was installed into and an unrelated folder to work in."""

    wheel: Path
    site: Path
    elsewhere: Path

    def python(self, *arguments: str) -> str:
        return run(sys.executable, *arguments, cwd=self.elsewhere, PYTHONPATH=str(self.site))


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    dist, site, elsewhere = (tmp_path_factory.mktemp(name) for name in ("dist", "site", "elsewhere"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, root, cwd=elsewhere)
    (wheel,) = dist.glob("*.whl")
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "install", *offline, "--target", site, wheel, cwd=elsewhere)
    return Installed(wheel, site, elsewhere)


def test_it_holds_the_package_its_data_and_nothing_else(installed: Installed, root: Path) -> None:
    names = set(ZipFile(installed.wheel).namelist())
    version = f"moesd_sim-{sim.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"sim", version}
    assert {f"{version}/licenses/LICENSE", "sim/py.typed"} <= names
    code = {path.relative_to(root).as_posix() for path in (root / "sim").glob("**/*.py")}
    data = {
        f"sim/_data/{path.relative_to(root).as_posix()}"
        for folder in ("conf", "hardware_specs")
        for path in (root / folder).glob("**/*")
        if path.is_file()
    }
    assert data
    assert {name for name in names if name.endswith(".py")} == code
    assert {name for name in names if name.startswith("sim/_data/")} == data


@pytest.mark.parametrize("folder", ["conf", "hardware_specs"])
def test_it_reads_its_own_data_from_anywhere(installed: Installed, folder: str) -> None:
    code = f"from sim.data import data_dir; p = data_dir({folder!r}); next(p.glob('**/*.yaml')).read_bytes(); print(p)"
    assert Path(installed.python("-c", code).strip()) == (installed.site / "sim" / "_data" / folder).resolve()


def test_it_runs_as_a_module(installed: Installed) -> None:
    assert "moesd-sim" in installed.python("-m", "sim", "--help")


def test_it_runs_as_a_command(installed: Installed) -> None:
    command = installed.site / "bin" / "moesd-sim"
    assert "moesd-sim" in run(command, "--help", cwd=installed.elsewhere, PYTHONPATH=str(installed.site))
