"""Every YAML of `conf/workload` composes against its schema and, with the data it asks for, gives requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from sim.data import data_dir, names_in
from sim.request import Requests
from sim.workload import (
    AzureTrace,
    BurstGptTrace,
    Cancelling,
    Classes,
    ClosedLoop,
    Mix,
    MooncakeTrace,
    ServeGen,
    Sessions,
    SimpleTrace,
    Synthetic,
    Trace,
    Workload,
)

SCHEMAS = {
    "synthetic_schema": Synthetic,
    "closed_loop_schema": ClosedLoop,
    "sessions_schema": Sessions,
    "cancelling_schema": Cancelling,
    "classes_schema": Classes,
    "mix_schema": Mix,
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


@pytest.fixture(scope="module", autouse=True)
def composing() -> Iterator[None]:
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(group="workload", name=name, node=schema)
    with hydra.initialize_config_dir(config_dir=str(data_dir("conf")), version_base="1.3"):
        yield


def load(name: str, *overrides: str) -> Workload:
    workload = OmegaConf.to_object(hydra.compose(overrides=[f"+workload={name}", *overrides]).workload)
    assert isinstance(workload, Workload)
    return workload


def schema_of(name: str) -> type[Workload]:
    return SCHEMAS[OmegaConf.load(data_dir("conf") / "workload" / f"{name}.yaml")["defaults"][0]]


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_of_the_catalogue_gives_requests(root: Path, name: str) -> None:
    schema = schema_of(name)
    if not issubclass(schema, Trace):
        assert len(load(name).requests(0)) > 100
        return
    with pytest.raises(MissingMandatoryValue, match="path"):
        load(name)
    window = ["workload.window_start_s=0"] if schema is ServeGen else []
    path = root / "tests" / "data" / FILES[schema]
    assert len(load(name, f"workload.path={path}", *window).requests(0)) > 1


@pytest.mark.parametrize("name", [name for name in NAMES if not issubclass(schema_of(name), Trace)])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    one, same, other = (as_bytes(load(name).requests(seed)) for seed in (5, 5, 6))
    assert one == same
    drawn = {"arrival_s", "prompt_tokens", "output_tokens", "group", "cancel_s"}
    fixed = name in {"batch", "closed_loop"}
    assert fixed == all(one.get(column) == other.get(column) for column in drawn)


def as_bytes(requests: Requests) -> dict[str, bytes]:
    columns = {column: getattr(requests, column) for column in Requests.__slots__}
    arrays = {name: column.tobytes() for name, column in columns.items() if isinstance(column, np.ndarray)}
    for name in ("block_ids", "generated_block_ids"):
        arrays[name] = b"".join(ids.tobytes() for ids in columns[name] or ())
    return arrays


def test_the_default_workload_is_small_and_stands_for_azure_s_conversations() -> None:
    requests = load("azure_like", "workload.num_requests=50_000").requests(0)
    assert np.median(requests.prompt_tokens) == pytest.approx(1020, rel=0.02)
    assert requests.prompt_tokens.mean() == pytest.approx(1155, rel=0.02)
    assert requests.output_tokens.mean() == pytest.approx(211, rel=0.02)


def test_a_workload_stands_on_any_other() -> None:
    chosen = load("cancelling", "workload@workload.base=sessions", "workload.base.num_sessions=7")
    assert isinstance(chosen, Cancelling)
    assert isinstance(chosen.base, Sessions)
    assert chosen.base.num_sessions == 7


def test_a_part_is_added_to_a_mix_and_priorities_with_it() -> None:
    mixed = load("mix", "+workload@workload.parts.day=diurnal", "+workload.priority={chat:0,job:2,day:1}")
    assert isinstance(mixed, Mix)
    assert list(mixed.parts) == ["chat", "job", "day"]
    requests = mixed.requests(0)
    assert set(requests.priority[requests.group == 1]) == {2}


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_every_schema_is_a_workload_that_omegaconf_accepts_and_refuses_unknown_keys(schema: type[Workload]) -> None:
    node = OmegaConf.structured(schema)
    with pytest.raises(Exception, match="rate_per_sec"):
        OmegaConf.merge(node, {"rate_per_sec": 1.0})
