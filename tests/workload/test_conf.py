"""Every YAML of `conf/workload` fits its schema and, with the data it asks for, gives requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from sim.data import data_dir, names_in
from sim.workload import AzureTrace, BurstGptTrace, MooncakeTrace, ServeGen, SimpleTrace, Synthetic, Workload

SCHEMAS = {
    "synthetic_schema": Synthetic,
    "azure_trace_schema": AzureTrace,
    "mooncake_trace_schema": MooncakeTrace,
    "burst_gpt_trace_schema": BurstGptTrace,
    "serve_gen_schema": ServeGen,
    "simple_trace_schema": SimpleTrace,
}
FILES = {
    AzureTrace: "azure.csv",
    MooncakeTrace: "mooncake.jsonl",
    BurstGptTrace: "burstgpt.csv",
    ServeGen: "servegen.jsonl",
    SimpleTrace: "simple.csv",
}
NAMES = names_in(data_dir("conf") / "workload")


def load(name: str, **overrides: object) -> Workload:
    config = OmegaConf.load(data_dir("conf") / "workload" / f"{name}.yaml")
    (schema,) = config.pop("defaults")
    workload = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SCHEMAS[schema]), config, overrides))
    assert isinstance(workload, Workload)
    return workload


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_of_the_catalogue_gives_requests(root: Path, name: str) -> None:
    config = OmegaConf.load(data_dir("conf") / "workload" / f"{name}.yaml")
    schema = SCHEMAS[config["defaults"][0]]
    if schema is Synthetic:
        requests = load(name).requests(0)
        assert len(requests) == config["num_requests"]
        return
    with pytest.raises(MissingMandatoryValue, match="path"):
        load(name)
    window = {"window_start_s": 0.0} if schema is ServeGen else {}
    requests = load(name, path=str(root / "tests" / "data" / FILES[schema]), **window).requests(0)
    assert len(requests) > 1


def test_the_default_workload_is_small_and_stands_for_azure_s_conversations() -> None:
    requests = load("azure_like", num_requests=50_000).requests(0)
    assert np.median(requests.prompt_tokens) == pytest.approx(1020, rel=0.02)
    assert requests.prompt_tokens.mean() == pytest.approx(1155, rel=0.02)
    assert requests.output_tokens.mean() == pytest.approx(211, rel=0.02)


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_every_schema_is_a_workload_that_omegaconf_accepts_and_refuses_unknown_keys(schema: type[Workload]) -> None:
    node = OmegaConf.structured(schema)
    with pytest.raises(Exception, match="rate_per_sec"):
        OmegaConf.merge(node, {"rate_per_sec": 1.0})
