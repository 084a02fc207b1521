"""Sampling of a token and rejection of drafts, as engines do them on the GPU: no step waits for the host."""

from __future__ import annotations

import torch


def sample(logits: torch.Tensor) -> torch.Tensor:
    """One token per row of `logits` [rows, vocabulary] at temperature 1 and in fp32, [rows] int64."""
    return race(torch.softmax(logits, dim=-1, dtype=torch.float32))


def race(probabilities: torch.Tensor) -> torch.Tensor:
    """A draw per row in proportion to `probabilities`, which need not sum to 1: the first of exponential clocks."""
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1)


def reject(
    target_logits: torch.Tensor, draft_logits: torch.Tensor, drafts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rejection sampling: what is emitted is distributed as the target alone would draw it (arXiv 2211.17192).

    Args:
        target_logits: [batch, drafts + 1, vocabulary].
        draft_logits: [batch, drafts, vocabulary]: what each draft was drawn from.
        drafts: [batch, drafts], int64.

    Returns:
        emitted: [batch, drafts + 1]; after the accepted drafts one token from the target, then -1.
        accepted: [batch], drafts accepted.
    """
    target, proposal = (torch.softmax(rows, dim=-1, dtype=torch.float32) for rows in (target_logits, draft_logits))
    count = drafts.shape[1]
    p, q = (rows[:, :count].gather(2, drafts[..., None])[..., 0] for rows in (target, proposal))
    kept = (torch.rand_like(p) * q < p).cumprod(dim=1)
    accepted = kept.sum(dim=1)
    residual = torch.cat([(target[:, :count] - proposal).clamp_(min=0), target[:, count:]], dim=1)
    at = accepted[:, None, None].expand(-1, 1, residual.shape[2])
    recovered = race(residual.gather(1, at)[:, 0])
    place = torch.arange(count + 1, device=drafts.device)
    padded = torch.cat([drafts, drafts.new_full((len(drafts), 1), -1)], dim=1)
    emitted = torch.where(place < accepted[:, None], padded, -1)
    return torch.where(place == accepted[:, None], recovered[:, None], emitted), accepted
