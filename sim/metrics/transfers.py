"""The way of KV caches from prefill to decode, in figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.metrics.record import Recorder
from sim.metrics.summary import Times, distribution, in_seconds


def transfers(recorder: Recorder) -> dict[str, Any]:
    """Seconds of every request's last transfer; empty where none was made.

    Returns:
        `wait_s`, from the first token until it begins; `transfer_s`, from then until the KV is there; `delay_s`, from
        the first token until then: what disaggregation adds to the gap before the second token. With overlap a transfer
        may begin before the first token.
    """
    if recorder.transfers is None:
        return {}
    start, there = in_seconds(recorder.transfers.start), in_seconds(recorder.transfers.there)
    first = Times.of(recorder).first_token_s
    return {
        "wait_s": distribution(np.maximum(start - first, 0.0)),
        "transfer_s": distribution(there - start),
        "delay_s": distribution(np.maximum(there - first, 0.0)),
    }


def transfer_columns(recorder: Recorder) -> dict[str, Any]:
    """Columns of `requests.parquet`; none where there are no pools."""
    found = recorder.transfers
    if found is None:
        return {}
    return {
        "prefill_replica": found.sender,
        "transfer_start_s": in_seconds(found.start),
        "transfer_end_s": in_seconds(found.there),
    }
