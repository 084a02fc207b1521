"""What to do with requests that do not fit the model's context."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from sim.request import Requests

OVER_CONTEXT = "longer than the model's context"


def clip_to_context(requests: Requests, max_context_tokens: int, *, drop: bool) -> Requests:
    """`requests` without those whose prompt and output together exceed `max_context_tokens`.

    With `drop` they are left out and counted in `Requests.dropped`; without, the first one is an error.

    Raises:
        ValueError: a request is too long and `drop` is not set, or dropping leaves none.
    """
    total = requests.prompt_tokens + requests.output_tokens
    over = total > max_context_tokens
    count = int(np.count_nonzero(over))
    if count == 0:
        return requests
    if not drop or count == len(requests):
        first = int(np.argmax(over))
        remedy = "shorter requests" if drop else "such requests dropped"
        raise ValueError(
            f"{requests.where(first)} has {requests.prompt_tokens[first]} prompt + {requests.output_tokens[first]} "
            f"output tokens, more than the model's context of {max_context_tokens} (as {count} of {len(requests)} do): "
            f"take a model with a longer context, or have {remedy}"
        )
    dropped = Counter(dict(requests.dropped))
    dropped[OVER_CONTEXT] += count
    return replace(requests.take(~over), dropped=tuple(dropped.items()))
