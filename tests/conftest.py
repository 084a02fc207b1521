"""What every test may ask for: the checkout's root, and other people's data where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from sim.serving import rank

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--compiled", action="store_true", help="the tests are of a compiled build, on pytest's pythonpath"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Compiled modules left beside their sources would be tested instead of them, whatever is edited."""
    compiled = not rank.__file__.endswith(".py")
    if compiled != config.getoption("--compiled"):
        wanted = "none compiled; delete sim/**/*.so" if compiled else "compiled modules; set pythonpath to their folder"
        raise pytest.UsageError(f"sim is imported from {rank.__file__}, but the tests want {wanted}")


# A red run can be repeated, and a slow machine is not a failure.
settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout: the folder that holds `pyproject.toml`."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published traces and measurements, which are not ours to commit; tests that need them skip without them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published traces and measurements are not beside the checkout (../shared/data)")
    return folder
