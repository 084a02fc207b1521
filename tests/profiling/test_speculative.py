"""The SD decode loop: its tokens, its caches, its forced acceptance."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.attention import Attention
from sim.layers import Ffn, Layers
from sim.model import Model
from sim.profiling.place import find_place
from sim.profiling.speculative import PHASES, SpeculativeLoop, draw_accepted
from sim.profiling.transformer import Transformer

ATTENTION = Attention(heads=4, kv_heads=2, head_dim=16)
DRAFTS, CONTEXT = 3, 12


def transformer(vocab: int = 40, ranks: int = 1) -> Transformer:
    run = Layers(count=2, attention=ATTENTION, ffn=Ffn(width=64))
    model = Model(name="tiny", hidden=64, vocab=vocab, max_context_tokens=512, layers=[run])
    return Transformer(model, find_place("cpu", "fp32"), ranks, 2, "sdpa", "loop")


def loop(target: Transformer, draft: Transformer, batch: int = 2, slots: int = 256) -> SpeculativeLoop:
    return SpeculativeLoop(target, draft, batch, DRAFTS, CONTEXT, slots)


def test_a_draft_equal_to_the_target_is_accepted_whole() -> None:
    """Only where the draft's cache is right after every round, full acceptance included."""
    model = transformer()
    run = loop(model, model)
    for mine, theirs in (
        (run._draft_cache.keys, run._target_cache.keys),
        (run._draft_cache.values, run._target_cache.values),
    ):
        for one, other in zip(mine, theirs, strict=True):
            one.copy_(other)
    # All committed tokens but the last are in the target's cache already, as the loop leaves it after any round.
    model.forward(run.committed[:, :-1], run.cached - DRAFTS, run._target_cache)
    for number in range(8):
        run.round_once()
        assert run.accepted.tolist() == [DRAFTS, DRAFTS]
        assert run.cached.tolist() == [CONTEXT + (DRAFTS + 1) * (number + 1)] * 2


def test_an_unrelated_draft_is_rejected_early() -> None:
    run = loop(transformer(), transformer(), batch=64)
    run.round_once()
    assert run.accepted.double().mean() < 2


def test_sequences_move_on_by_what_was_accepted_and_one() -> None:
    run = loop(transformer(), transformer())
    forced = torch.tensor([[0, 3], [2, 1], [3, 0], [1, 2]])
    before = run.cached.clone()
    timings = run.time_rounds(torch.cat([forced, forced]))
    assert (run.cached - before).tolist() == (2 * (forced.sum(0) + 4)).tolist()
    assert set(timings) == {*PHASES, "round"}
    assert all(timing.samples == 8 - SpeculativeLoop.WARM_UP_ROUNDS for timing in timings.values())
    assert timings["round"].latency_s > max(timings[phase].latency_s for phase in PHASES)


def test_the_committed_tokens_move_on_by_the_accepted_drafts_and_a_new_token() -> None:
    run = loop(transformer(), transformer())
    run.propose()
    run.verify()
    before, drafts = run.committed.tolist(), run.drafts.tolist()
    run.forced.copy_(torch.tensor([0, 2]))
    run.settle()
    assert run.committed[0, :-1].tolist() == before[0][1:]
    assert run.committed[1, :-1].tolist() == [before[1][3], *drafts[1][:2]]


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_drawn_acceptance_has_the_expected_mean(rate: float) -> None:
    accepted = draw_accepted(500, 40, 4, rate)
    assert accepted.shape == (500, 40)
    assert accepted.double().mean().item() == pytest.approx(sum(rate**i for i in range(1, 5)), abs=0.03)


def test_models_that_cannot_speculate_together_are_refused() -> None:
    with pytest.raises(ValueError, match="share a vocabulary on one rank, got 40 and 41"):
        loop(transformer(40), transformer(41))
    with pytest.raises(ValueError, match="context must be >= drafts=3, got 2"):
        SpeculativeLoop(transformer(), transformer(), 1, 3, 2, 64)
    with pytest.raises(ValueError, match="over 2 and 2 ranks"):
        loop(transformer(ranks=2), transformer(ranks=2))
