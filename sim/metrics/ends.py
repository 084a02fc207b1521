"""What became of the requests, and of the replicas that died."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.lines import TICKS_PER_S
from sim.metrics.record import NOT_YET, Recorder


def ends(recorder: Recorder) -> dict[str, Any]:
    """Counts of how requests ended, of what was done in vain, and of failures.

    Returns:
        Requests `finished`, `cancelled` by their clients, `lost` with a replica and, of an interrupted run, `open`;
        `retried` (sent again at least once); `wasted_tokens`, emitted for nobody; `outages`; `down_s`, replica-seconds
        down until the run's last step.
    """
    finish, cancelled, lost = (
        np.asarray(column) != NOT_YET for column in (recorder.finish, recorder.cancelled, recorder.lost)
    )
    until = int(recorder.column("end").max(initial=0))
    down = (min(until, back if back != NOT_YET else until) - min(until, dies) for _, dies, back in recorder.outages)
    return {
        "finished": int(finish.sum()),
        "cancelled": int(cancelled.sum()),
        "lost": int(lost.sum()),
        "open": int((~(finish | cancelled | lost)).sum()),
        "retried": int(np.count_nonzero(recorder.retries)),
        "wasted_tokens": sum(recorder.wasted),
        "outages": len(recorder.outages),
        "down_s": sum(down) / TICKS_PER_S,
    }
