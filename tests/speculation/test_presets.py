"""Presets of `conf/speculation` can be changed by half: another draft length or acceptance fits each of them."""

from __future__ import annotations

import pytest

from sim import compose
from sim.data import data_dir, names_in

FOLDER = data_dir("conf") / "speculation"
MODELS = {"mtp": "glm45_air"}


@pytest.mark.parametrize("length", ["disable_above", "step_up_down", "table_by_batch"])
@pytest.mark.parametrize("preset", ["draft_model", "eagle3", "mtp", "ngram"])
def test_every_length_fits_every_chain(preset, length):
    model = MODELS.get(preset, "llama31_8b")
    _, experiment = compose(
        f"model={model}", "cluster=h100_x4", f"speculation={preset}", f"speculation/length={length}"
    )
    assert type(experiment.speculation.length).__name__.lower() == length.replace("_", "")


@pytest.mark.parametrize("preset", sorted(set(names_in(FOLDER)) - {"off", "eagle2_tree"}))
def test_another_acceptance_fits_every_chain(preset):
    model = MODELS.get(preset, "llama31_8b")
    _, experiment = compose(
        f"model={model}", "cluster=h100_x4", f"speculation={preset}", "speculation/acceptance=mean_length"
    )
    assert type(experiment.speculation.acceptance).__name__ == "MeanLength"
