"""Sampling and rejection draw from the distributions they should."""

# ruff: noqa: E402 - without torch the file skips before it imports what needs it

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; the profiling runner needs it")

from sim.profiling.sampling import reject, sample

ROWS = 40_000


def chi_square(tokens, probabilities) -> float:
    """Pearson's statistic per degree of freedom: about 1 when the tokens follow the probabilities."""
    seen = torch.bincount(tokens, minlength=len(probabilities)).double()
    expected = probabilities.double() * len(tokens)
    return float(((seen - expected) ** 2 / expected).sum() / (len(probabilities) - 1))


def repeated(*rows):
    return torch.tensor(rows).expand(ROWS, -1, -1).contiguous()


def test_samples_follow_the_softmax() -> None:
    logits = torch.randn(8)
    assert chi_square(sample(logits.expand(ROWS, -1)), torch.softmax(logits, 0)) < 3


def test_rejection_preserves_the_target_distribution() -> None:
    """Whatever the draft proposes, each emitted token follows the target's own conditional distribution."""
    target, proposal = torch.randn(3, 6), 1.5 * torch.randn(2, 6)
    p = torch.softmax(target, 1)
    drafts = torch.multinomial(torch.softmax(proposal, 1), ROWS, replacement=True).T.contiguous()
    emitted, accepted = reject(repeated(*target.tolist()), repeated(*proposal.tolist()), drafts)
    for depth in range(3):
        there = emitted[accepted >= depth, depth]
        assert len(there) > 1000
        assert chi_square(there, p[depth]) < 3
    # Sanity of the test: the drafts themselves are far from the target.
    assert chi_square(drafts[:, 0], p[0]) > 100


def test_the_acceptance_rate_is_one_minus_the_total_variation() -> None:
    target, proposal = torch.randn(2, 6), torch.randn(1, 6)
    overlap = torch.minimum(torch.softmax(target[0], 0), torch.softmax(proposal[0], 0)).sum()
    drafts = torch.multinomial(torch.softmax(proposal, 1), ROWS, replacement=True).T.contiguous()
    _, accepted = reject(repeated(*target.tolist()), repeated(*proposal.tolist()), drafts)
    assert accepted.double().mean().item() == pytest.approx(overlap.item(), abs=0.01)


def test_emitted_are_the_accepted_drafts_one_token_and_nothing() -> None:
    target, proposal = torch.randn(64, 5, 9), torch.randn(64, 4, 9)
    drafts = torch.randint(9, (64, 4))
    emitted, accepted = reject(target, proposal, drafts)
    assert accepted.unique().numel() > 2
    for row, count, proposed in zip(emitted.tolist(), accepted.tolist(), drafts.tolist(), strict=True):
        assert row[:count] == proposed[:count]
        assert 0 <= row[count] < 9
        assert row[count + 1 :] == [-1] * (4 - count)
