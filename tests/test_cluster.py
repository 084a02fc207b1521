"""Clusters: what they may ask for, and what their GPUs and links can join."""

from __future__ import annotations

import pytest

from sim.data import data_dir, names_in, read_yaml
from sim.hardware import Cluster, Gpu, Link, resolve

CLUSTERS = data_dir("conf") / "cluster"


@pytest.mark.parametrize("name", names_in(CLUSTERS))
def test_every_cluster_file_reads_and_resolves(name: str) -> None:
    cluster = read_yaml(CLUSTERS / f"{name}.yaml", Cluster)
    gpu, link = resolve(cluster)
    assert isinstance(gpu, Gpu) and isinstance(link, Link)
    assert (gpu.name, link.name) == (cluster.gpu, gpu.link)
    size = name.rpartition("_x")[2]
    assert cluster.gpus == (int(size) if size.isdigit() else 1)


def test_gpus_of_a_cluster() -> None:
    cluster = Cluster(gpu="h200_sxm", tensor_parallel=4, replicas=3)
    assert (cluster.gpus_per_replica, cluster.gpus) == (4, 12)
    assert Cluster(gpu="h200_sxm", tensor_parallel=2, data_parallel=4, replicas=3).gpus == 24
    assert Cluster(gpu="h200_sxm", tensor_parallel=2, pipeline_parallel=4).gpus == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tensor_parallel": 0}, r"cluster.tensor_parallel must lie in \[1, 1024\] .*got 0"),
        ({"replicas": 0}, "cluster.replicas must lie in .*got 0"),
        ({"memory_utilization": 1.5}, "cluster.memory_utilization must lie in .*got 1.5"),
        ({"memory_utilization": 0.0}, "cluster.memory_utilization must lie in .*got 0.0"),
        ({"kv_blocks": -1}, "cluster.kv_blocks must lie in .*got -1"),
        ({"block_tokens": 0}, "cluster.block_tokens must lie in .*got 0"),
        ({"expert_parallel": True}, "cluster.expert_parallel must be false where a replica has one GPU"),
        ({"data_parallel": 0}, "cluster.data_parallel must lie in .*got 0"),
        ({"pipeline_parallel": 0}, "cluster.pipeline_parallel must lie in .*got 0"),
        ({"pipeline_parallel": 2, "data_parallel": 2}, "pipeline_parallel must be 1 where .*data_parallel is 2, got 2"),
        ({"pipeline_link": "infiniband_ndr"}, "pipeline_link must be .*pipeline_parallel is 1 .*got 'infiniband_ndr'"),
        ({"link": "pcie4_x16"}, "cluster.link must be .*one GPU .*got 'pcie4_x16'"),
    ],
)
def test_bad_clusters_name_field_bound_and_value(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cluster(gpu="h200_sxm", **fields)  # type: ignore[arg-type]


def test_resolve_takes_the_link_asked_for_and_the_overrides() -> None:
    gpu, link = resolve(
        Cluster(gpu="h200_sxm", tensor_parallel=2, link="pcie5_x16", gpu_overrides={"peak_flops_per_s.bf16": 5e14})
    )
    assert (link.name, gpu.flops_per_s("bf16")) == ("pcie5_x16", 5e14)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(gpu="h300"), "cluster.gpu must be one of a100_40gb_sxm, .*got 'h300'"),
        (
            Cluster(gpu="h200_sxm", tensor_parallel=2, link="rope"),
            "cluster.link must be one of infiniband_hdr, .*got 'rope'",
        ),
        (
            Cluster(gpu="h200_sxm", tensor_parallel=16),
            r"tensor_parallel must be <= 8 \(h200_sxm over nvlink4\), got 16",
        ),
        (Cluster(gpu="a40", tensor_parallel=4, link="nvlink3_bridge"), "tensor_parallel must be <= 2 .*got 4"),
        (
            Cluster(gpu="h200_sxm", tensor_parallel=4, data_parallel=4),
            r"cluster.tensor_parallel x cluster.data_parallel must be <= 8 .*got 16",
        ),
        (
            Cluster(gpu="h200_sxm", tensor_parallel=8, pipeline_parallel=2),
            r"cluster.tensor_parallel x cluster.pipeline_parallel must be <= 8 .*got 16; .*pipeline_link",
        ),
    ],
)
def test_resolve_refuses_what_does_not_exist_or_fit(cluster: Cluster, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(cluster)


def test_stages_may_lie_on_different_nodes() -> None:
    resolve(Cluster(gpu="h200_sxm", tensor_parallel=8, pipeline_parallel=2, pipeline_link="infiniband_ndr"))


def test_a_gb200_rack_is_one_node() -> None:
    assert resolve(Cluster(gpu="gb200", tensor_parallel=72))[1].name == "nvlink5"
