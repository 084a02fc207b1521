"""Every YAML of `conf/speculation/acceptance` fits its schema, and gives the figures it cites."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from omegaconf import OmegaConf

from sim import theory
from sim.data import data_dir, names_in
from sim.speculation import acceptance
from sim.speculation.tree import RatePerRank

FOLDER = data_dir("conf") / "speculation" / "acceptance"
SCHEMAS = {
    f"{re.sub('(?<!^)(?=[A-Z])', '_', kind.__name__).lower()}_schema": kind
    for kind in (getattr(acceptance, name) for name in acceptance.__all__ if name != "Acceptance")
} | {"rate_per_rank_schema": RatePerRank}


def load(name, **overrides):
    config = OmegaConf.load(FOLDER / f"{name}.yaml")
    (schema,) = config.pop("defaults")
    policy = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SCHEMAS[schema]), config, overrides))
    assert isinstance(policy, acceptance.Acceptance)
    return policy


@pytest.mark.parametrize("name", sorted(set(names_in(FOLDER)) - {"recorded"}))
def test_every_file_is_an_acceptance(name):
    survival = load(name).survival(8)
    assert (np.diff(survival) <= 1e-12).all()
    assert 0.0 <= survival[-1] <= survival[0] < 1.0


def test_a_recording_needs_its_path(root):
    path = root / "tests" / "speculation" / "data" / "recorded.jsonl"
    assert load("recorded", path=str(path)).survival(1) == pytest.approx(9 / 14)


def measured(root, name):
    with (root / "validation" / "measured" / name).open() as file:
        return list(csv.DictReader(file))


def test_presets_give_the_published_figures(root):
    rows = measured(root, "acceptance.csv")
    for row in rows:
        policy, value = load(row["preset"]), float(row["value"])
        if row["metric"] == "mean_acceptance_length":
            # Measured lengths fall by their noise from one draft length to the next, fitted ones cannot.
            assert policy.mean_accepted(int(row["drafts"])) + 1 == pytest.approx(value, abs=0.2), row
        else:
            assert policy.survival(int(row["position"]))[-1] == pytest.approx(value, abs=6e-4), row
    lengths = [row for row in rows if row["metric"] == "mean_acceptance_length"]
    errors = [load(row["preset"]).mean_accepted(int(row["drafts"])) + 1 - float(row["value"]) for row in lengths]
    assert np.mean(np.abs(errors)) < 0.02


def test_presets_of_the_paper_give_its_sigma(root):
    name = {"qwen2_57b_a14b": "moesd_qwen2", "mixtral_8x7b": "moesd_mixtral_eagle"}
    rows, errors = measured(root, "moesd_peaks.csv"), []
    for row in rows:
        data_set = row["dataset"].lower().replace("-", "_")
        policy = load(f"{name[row['pair']]}_{data_set}_t{row['temperature']}")
        errors.append(float(theory.sigma(policy.rate, int(row["gamma"]))) - float(row["sigma"]))
    assert np.mean(np.abs(errors)) < 0.012
    far = [row for row, error in zip(rows, errors, strict=True) if abs(error) > 0.03]
    # The one value above that at one draft less; on all other hardware it is .65 to .67.
    assert [(row["hardware"], row["dataset"], row["gamma"], row["sigma"]) for row in far] == [
        ("2xH800", "HumanEval", "4", "0.75")
    ]
