"""Prefix caching: which content the blocks of a pool hold, shared by reference, least recently freed out first.

Mirrors vLLM V1 (`kv_cache_manager.py`, `block_pool.py`): a block's id stands for its content and all before it; full
blocks are known under their id as soon as a step computes them; freed blocks keep their content, the tail of a sequence
first in line to be evicted. Here blocks without content are taken before any with (vLLM keeps one queue of both), and
requests admitted in one step do not find each other's blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from itertools import takewhile

from sim.request import Requests
from sim.serving.sequence import Sequence

_OWN_BLOCKS = 1 << 24
_REQUESTS_KNOWN = 4096


class Content(ABC):
    """What the blocks of one pool hold.

    Attributes:
        shared: blocks that would be needed more, if no two sequences shared any.
        blocks: free blocks that still hold something.
    """

    shared = 0
    blocks = 0

    @abstractmethod
    def hits(self, sequence: Sequence, blocks: int) -> int:
        """How many of the first `blocks` blocks of a waiting sequence are there; nothing is changed."""

    @abstractmethod
    def in_use(self, sequence: Sequence, hits: int) -> int:
        """How many of its first `hits` blocks running sequences hold."""

    @abstractmethod
    def take(self, sequence: Sequence, hits: int) -> None:
        """It is admitted and holds its first `hits` blocks."""

    @abstractmethod
    def fill(self, sequence: Sequence, blocks: int) -> None:
        """Its first `blocks` blocks are computed and known from now on."""

    @abstractmethod
    def free(self, sequence: Sequence, blocks: int) -> None:
        """With `blocks` blocks computed it gives them all back."""

    @abstractmethod
    def keep(self, free_blocks: int) -> None:
        """Evict what the free blocks have no room for."""


class OwnContent(Content):
    """For streams in which no two prompts share a block: only a preempted sequence ever finds its own again.

    Free blocks are one line in the order of freeing, evicted from its head; a sequence that may come back knows where
    its run of them ends. So nothing costs anything per block.
    """

    def __init__(self) -> None:
        self._evicted = 0
        self._runs: dict[int, tuple[int, int]] = {}

    def hits(self, sequence: Sequence, blocks: int) -> int:
        """What is left of its run, whose tail goes first."""
        return min(blocks, self._left(sequence)) if self._runs else 0

    def in_use(self, sequence: Sequence, hits: int) -> int:
        """None."""
        return 0

    def take(self, sequence: Sequence, hits: int) -> None:
        """The run ends; what of it was not taken is free without content."""
        if sequence.request not in self._runs:
            return
        left = self._left(sequence)
        _, own_end = self._runs.pop(sequence.request)
        self.blocks -= left
        for request, (blocks, end) in self._runs.items():
            if end > own_end:
                self._runs[request] = (blocks, end - left)

    def fill(self, sequence: Sequence, blocks: int) -> None:
        """Nobody else could find them."""

    def free(self, sequence: Sequence, blocks: int) -> None:
        """A run at the end of the line."""
        self.blocks += blocks
        if not sequence.finished:
            self._runs[sequence.request] = (blocks, self._evicted + self.blocks)

    def keep(self, free_blocks: int) -> None:
        """From the head of the line."""
        over = self.blocks - max(0, free_blocks)
        if over > 0:
            self._evicted += over
            self.blocks -= over

    def _left(self, sequence: Sequence) -> int:
        """Blocks of its run that have not been evicted."""
        blocks, end = self._runs.get(sequence.request, (0, self._evicted))
        return max(0, min(blocks, end - self._evicted))


class SharedContent(Content):
    """Blocks by id: ids in use, with how many sequences share them, and ids that free blocks still hold."""

    def __init__(self, ids: BlockIds) -> None:
        self._ids = ids
        self._used: dict[int, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict()

    def hits(self, sequence: Sequence, blocks: int) -> int:
        """Leading ids that are there."""
        ids = self._ids.of(sequence.request, blocks)
        for count, block in enumerate(ids):
            if block not in self._used and block not in self._free:
                return count
        return len(ids)

    def in_use(self, sequence: Sequence, hits: int) -> int:
        """Those with references."""
        return sum(map(self._used.__contains__, self._ids.of(sequence.request, hits)))

    def take(self, sequence: Sequence, hits: int) -> None:
        """One reference more to each."""
        sequence.blocks = self._ids.of(sequence.request, hits)
        for block in sequence.blocks:
            references = self._used.get(block, 0)
            self._used[block] = references + 1
            if references:
                self.shared += 1
            else:
                del self._free[block]
        self.blocks = len(self._free)

    def fill(self, sequence: Sequence, blocks: int) -> None:
        """Up to the first id in use already: two blocks of one content stay two."""
        new, used, free = self._ids.of(sequence.request, blocks)[len(sequence.blocks) :], self._used, self._free
        fresh = dict.fromkeys(new, 1)
        if not used.keys().isdisjoint(fresh):
            fresh = dict.fromkeys(takewhile(lambda block: block not in used, new), 1)
        used.update(fresh)
        sequence.blocks += fresh
        if not free.keys().isdisjoint(fresh):
            for block in fresh:
                free.pop(block, None)
            self.blocks = len(free)

    def free(self, sequence: Sequence, blocks: int) -> None:
        """Its last first."""
        self.fill(sequence, blocks)
        held, sequence.blocks = sequence.blocks[::-1], []
        used, last = self._used, held
        if self.shared:
            last = []
            for block in held:
                if used[block] > 1:
                    used[block] -= 1
                    self.shared -= 1
                else:
                    last.append(block)
        for block in last:
            del used[block]
        self._free.update(dict.fromkeys(last))
        self.blocks = len(self._free)

    def keep(self, free_blocks: int) -> None:
        """One by one."""
        for _ in range(len(self._free) - max(0, free_blocks)):
            self._free.popitem(last=False)
        self.blocks = len(self._free)


def content_of(ids: BlockIds) -> Content:
    """The cheaper content that fits the stream."""
    return SharedContent(ids) if ids.shared else OwnContent()


class BlockIds:
    """Ids of the KV blocks of every request's tokens.

    Where the workload knows ids they are split to the size of the pool's blocks; the rest of a request, what it emits
    included, has ids of its own, which serve it again after a preemption.

    Attributes:
        shared: the workload knows ids.

    Args:
        requests: the stream.
        block_tokens: tokens per KV block; must divide those per id of the workload.

    Raises:
        ValueError: it does not.
    """

    def __init__(self, requests: Requests, block_tokens: int) -> None:
        self._requests = requests
        self._block_tokens = block_tokens
        self._parts = 1
        self._known: dict[int, list[int]] = {}
        self.shared = requests.block_ids is not None
        if requests.block_ids is not None:
            self._parts, rest = divmod(requests.block_tokens, block_tokens)
            if rest or not self._parts:
                raise ValueError(
                    f"cluster.block_tokens must divide the {requests.block_tokens} tokens per prefix block of the "
                    f"workload, got {block_tokens}"
                )

    def of(self, request: int, count: int) -> list[int]:
        """Ids of the first `count` blocks of `request`."""
        ids = self._known.get(request)
        if ids is None:
            if len(self._known) >= _REQUESTS_KNOWN:
                self._known.clear()
            ids = self._known[request] = self._all(request)
        return ids[:count]

    def _all(self, request: int) -> list[int]:
        requests = self._requests
        count = int(requests.prompt_tokens[request] + requests.output_tokens[request]) // self._block_tokens
        ids = self._given(request, count) if requests.block_ids is not None else []
        start = -1 - request * _OWN_BLOCKS
        ids.extend(range(start - len(ids), start - count, -1))
        return ids

    def _given(self, request: int, count: int) -> list[int]:
        """Ids that the workload names, for at most `count` blocks: its prompt's full blocks, then its output's."""
        requests, parts = self._requests, self._parts
        assert requests.block_ids is not None
        full = int(requests.prompt_tokens[request]) // requests.block_tokens
        given = requests.block_ids[request][:full].tolist()
        if requests.generated_block_ids is not None and len(given) == full:
            given += requests.generated_block_ids[request].tolist()
        wanted = -(-count // parts)
        return [block * parts + part for block in given[:wanted] for part in range(parts)][:count]
