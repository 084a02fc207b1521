"""Random numbers by address: a draw is a function of (seed, stream, indices), never of how many draws came before.

That is what makes runs comparable: every variant of a what-if (SD on and off, another scheduler, another block
length) sees the same draw for the same request and position. The mixer is the finaliser of SplitMix64 (Steele, Lea,
Flood, OOPSLA 2014), applied once per index, so that neighbouring seeds, requests and positions are unrelated.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key(seed: int, stream: str) -> Keys:
    """The 0-d key of a named stream of a run: streams (arrivals, acceptance, routing) never share draws."""
    root = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return derive(derive(np.asarray(root), 0), zlib.crc32(stream.encode()))


def derive(keys: Keys, index: ArrayLike) -> Keys:
    """Keys one level down: `keys` and `index` broadcast, and each pair gives an independent key."""
    with np.errstate(over="ignore"):
        z = np.asarray(keys + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        z ^= z >> np.uint64(30)
        z *= _MIX_1
        z ^= z >> np.uint64(27)
        z *= _MIX_2
        z ^= z >> np.uint64(31)
        return z


def uniform(keys: Keys) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 bits, one for each key."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
