"""The campaigns: the shapes are those that the cost model prices."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.calibration.trace import OPS
from sim.model import read_model
from sim.profiling.campaigns import CAMPAIGNS, Plan, cases_of
from sim.profiling.cases import Case
from sim.profiling.grids import FULL, QUICK


def plan(name: str = "qwen3_30b_a3b", draft: str = "qwen3_0_6b", ranks: int = 1) -> Plan:
    return Plan(
        model=read_model(name),
        draft=read_model(draft) if draft else None,
        model_name=name,
        draft_name=draft,
        ranks=ranks,
        grid=QUICK,
        dtype="bf16",
        attention=("triton",),
        prefill=("flash",),
        experts=("grouped_mm",),
        elementwise="inductor",
        layers=48,
        draft_layers=28,
        gpus=2,
    )


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_every_campaign_has_cases_each_once_and_complete(campaign: str) -> None:
    cases = cases_of(campaign, plan())
    assert cases
    assert len({case.label() for case in cases}) == len(cases)
    for case in cases:
        assert set(OPS[case.op]) <= set(case.shape)


def test_the_gemms_are_the_model_s_matrices_cut_over_the_ranks() -> None:
    shapes = {(case.integer("n"), case.integer("k")) for case in cases_of("gemm", plan(ranks=4))}
    assert shapes == {((32 + 2 * 4) * 128 // 4, 2048), (2048, 32 * 128 // 4), (128, 2048)}


def test_the_experts_are_timed_for_8_64_and_128_of_them_and_for_pools() -> None:
    cases = cases_of("experts", plan())
    assert {case.integer("experts") for case in cases} == {8, 64, 128}
    at_256 = [case for case in cases if case.integer("tokens") == 256 and case.integer("experts") == 128]
    pools = {case.shape["distinct_experts"] for case in at_256 if str(case.shape["routing"]).startswith("pool")}
    assert pools == {16.0, 32.0, 64.0, 96.0, 128.0}


def test_verification_spans_widths_1_to_16_over_1_to_64k_cached_tokens() -> None:
    cases = cases_of("verify_attention", replace(plan(), grid=FULL))
    assert {case.integer("width") for case in cases} >= {1, 2, 4, 8, 16}
    assert {case.integer("context_tokens") for case in cases} >= {1, 4096, 65536}
    assert all(case.integer("batch") * case.integer("context_tokens") <= FULL.most_cached_tokens for case in cases)


def test_a_rank_keeps_a_kv_head_where_there_are_fewer_heads_than_ranks() -> None:
    case = cases_of("attention_decode", plan(ranks=8))[0]
    assert (case.integer("heads"), case.integer("kv_heads")) == (4, 1)


def test_latent_attention_has_ops_of_its_own() -> None:
    for campaign, op in (("attention_prefill", "mla_prefill"), ("verify_attention", "mla_decode")):
        assert {case.op for case in cases_of(campaign, plan("deepseek_v2_lite"))} == {op}


def test_nothing_to_time_is_no_case() -> None:
    assert not cases_of("experts", plan("qwen3_8b"))
    assert not cases_of("draft_step", plan(draft=""))
    assert not cases_of("sd_round", plan(ranks=2))
    assert not cases_of("collectives", replace(plan(), gpus=1))
    assert not cases_of("target_step", replace(plan(), buildable=False))


def test_unknown_campaigns_and_incomplete_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="campaign must be one of gemm"):
        cases_of("gem", plan())
    with pytest.raises(ValueError, match="gemm needs the columns n, k"):
        Case("gemm", {"m": 1}, "linear")
    with pytest.raises(ValueError, match="no column rows"):
        Case("gemm", {"m": 1, "n": 1, "k": 1, "rows": 1}, "linear")
