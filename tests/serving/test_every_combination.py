"""Blocks of any length equal single steps in the whole product of what can be combined, nothing left out.

Schedulers, draft lengths, routers, roomy and tight pools, prefix caching, planning ahead, one pool or two, with clients
that wait for each other and give up. The engine against itself: what one event per step in an independent simulator
gives is compared for a part of these (`test_exact_blocks`, `test_policies_exact`, `test_fleet`, `test_disaggregated`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from sim.serving.chunked import ChunkedPrefill, DecodePriority, PriorityClasses, ShortestFirst
from sim.serving.kv import KvLayout
from sim.serving.prefill_first import IterationLevel, PrefillFirst, SglangPrefillFirst, StaticBatch
from sim.serving.router import LeastRequests, PrefixAware
from tests.serving.engine import stream, with_prefixes
from tests.serving.test_disaggregated import LAYERED, Pooled, draft_ticks
from tests.serving.test_exact_blocks import ROOMY
from tests.serving.test_fleet import COLUMNS, ROUTERS, Fleet, chained, conserves, impatient
from tests.serving.test_policies_exact import LENGTHS, matches

SCHEDULERS = (
    ChunkedPrefill, DecodePriority, ShortestFirst, PriorityClasses,
    PrefillFirst, SglangPrefillFirst, StaticBatch, IterationLevel,
)  # fmt: skip
SPECULATION = {
    "off": {},
    "fixed": {"drafts": 3},
    "finds nothing now and then": {"drafts": 4, "offers": matches},
    **{name: {"length": length} for name, length in LENGTHS.items()},
}
TIGHT = KvLayout(blocks=64, block_tokens=4, lookahead_tokens=3)


def requests():
    """A burst of long and short ones on a pool that holds one of the longest, prompts shared in part."""
    made = with_prefixes(stream(16, 200.0, prompt=90, output=40), prompts=4)
    made.prompt_tokens[:] = np.minimum(made.prompt_tokens, 160)
    made.output_tokens[:] = np.minimum(made.output_tokens, 70)
    made = replace(made, priority=np.arange(len(made)) % 3)
    return impatient(chained(made, share=0.3), share=0.2, mean_s=0.4)


@pytest.mark.parametrize("speculation", SPECULATION.values(), ids=SPECULATION)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_blocks_equal_single_steps(scheduler, speculation):
    made, preempted, hits = requests(), 0, 0
    for routing, kv, prefix, ahead, pools in product(ROUTERS.values(), (ROOMY, TIGHT), (False, True), (0, 1), (1, 2)):
        if (isinstance(routing, PrefixAware) and not prefix) or (scheduler is StaticBatch and pools == 2):
            continue  # refused
        options = {"kv": kv, "prefix": prefix, "ahead": ahead, "routing": routing, "replicas": 2}
        if pools == 2:
            decode_routing = routing if routing.counts_tokens else LeastRequests()
            recompute = draft_ticks if speculation else None
            options |= {"transfer": LAYERED, "recompute": recompute, "decode_routing": decode_routing}
        kind = Fleet if pools == 1 else Pooled
        deployment = kind(scheduler=scheduler, **options, **speculation, max_seqs=6, budget=512)
        single, blocks = deployment.run(made, 1), deployment.run(made, 4096)
        for name in (*COLUMNS, "admitted", "replica", "hit_tokens"):
            assert getattr(single, name) == getattr(blocks, name), (name, options)
        conserves(deployment, made, blocks)
        preempted += sum(blocks.preemptions)
        hits += sum(blocks.hit_tokens)
    assert hits > 0
    assert preempted > 0 or scheduler in {StaticBatch, IterationLevel}, (
        "a tight pool must run dry, else it tests little"
    )
