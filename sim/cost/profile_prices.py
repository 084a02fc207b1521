"""Step times from a layer profile: measured kernels of this very model, GPU and engine, interpolated.

A cost model in its own right beside `StepCost`: nothing is fitted, so it prices what was profiled and nothing else.
Query tokens are padded to the engine's CUDA-graph sizes; decodes beside a prompt are looked up together with it; of
several prompts in a step one is looked up with the decodes, the others alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol, cast

import numpy as np

from sim.cost.host import Engine
from sim.cost.lines import TICKS_PER_S, Lines, cell_bounds, ticks_table
from sim.cost.profile import LayerProfile
from sim.cost.profile_attention import Floats, segment
from sim.cost.shape import Moments


class Cells(Protocol):
    """Values at the corners of a grid of three axes."""

    def __getitem__(self, corner: tuple[int, int, int], /) -> float:
        """Value at a corner."""


def no_lead(_: int) -> float:
    """Every context of a batch is as long as the mean."""
    return 0.0


class ProfilePrices:
    """What a rank asks: step times in ticks, without speculative decoding.

    Attributes:
        engine: as given.
        bounds: between cells of total context.
        token_ticks: ticks of all layers that see tokens, over the computed tokens of a step.
        row_ticks: of LM head and sampler, over the sequences that sample.
        host_ticks: of the host, over the sequences in the step.

    Args:
        profile: the model's kernel times.
        engine: graph sizes, launches and host time.
        layers: decoder layers, for launches.
        most_tokens: most query tokens of a step (`scheduler.max_batched_tokens`).
        most_context_tokens: most cached tokens of a batch (the KV pool).
        kernel_scale: kernel time of the run over that of the profile, where it was calibrated; 1 otherwise.
        lead_tokens: by how much the longest context of so many decoding sequences exceeds their mean. A rank knows
            their sum alone, so this comes from the workload.

    Raises:
        ValueError: a scale that is not positive; later, a step with drafts.
    """

    def __init__(
        self,
        profile: LayerProfile,
        engine: Engine,
        layers: int,
        most_tokens: int,
        most_context_tokens: int,
        kernel_scale: float = 1.0,
        lead_tokens: Callable[[int], float] = no_lead,
    ) -> None:
        if not kernel_scale > 0:
            raise ValueError(f"kernel_scale must be > 0, got {kernel_scale}")
        self._profile = profile
        self.engine = engine
        self._layers = layers
        self._scale = kernel_scale
        self._lead_tokens = cache(lead_tokens)
        self.bounds = cell_bounds(most_context_tokens)
        tokens = np.arange(most_tokens + 1)
        kernels = kernel_scale * TICKS_PER_S
        self.token_ticks: list[float] = (profile.token_s(engine.padded_tokens(tokens)) * kernels).tolist()
        self.row_ticks: list[float] = (profile.row_s(tokens) * kernels * (tokens > 0)).tolist()
        self.host_ticks = ticks_table(engine.step_host_s + engine.sequence_host_s * tokens.astype(np.float64))
        self._launch = ticks_table(engine.launch_s(layers, tokens, np.zeros_like(tokens), full_graph=False))
        grid = profile.attention
        self._axes: tuple[list[float], list[float], list[float]] = (
            grid.chunk.tolist(), grid.history.tolist(), grid.context.tolist(),
        )  # fmt: skip
        self.decode = cache(self._tabulate_decode)
        self._beside = cache(self._tabulate_beside)

    def mixed(self, drafts: int, sequences: int, context_tokens: int, moments: Moments) -> int:
        """One step with prefill, in ticks.

        Chunks of different sizes count as equal ones with the same tokens and the same query-key pairs: as many as the
        tokens fill, and not a whole number of them.
        """
        _refuse_drafts(drafts)
        chunks, new_tokens, _, _, completed = moments
        attention = self.prompt_ticks(sequences, context_tokens, moments)
        tokens = sequences + new_tokens
        kernels = self.token_ticks[tokens] + self.row_ticks[sequences + completed] + attention
        return max(round(kernels), self._launch[tokens]) + self.host_ticks[sequences + chunks]

    def ragged(self, sequences: int, at_least: tuple[int, ...], context_tokens: int) -> int:
        """One step without prefill; a profile has no attention over drafts, so nobody may verify any."""
        _refuse_drafts(len(at_least))
        return self.decode(sequences, 0).at(context_tokens)

    def ragged_mixed(self, at_least: tuple[int, ...], sequences: int, context_tokens: int, moments: Moments) -> int:
        """`mixed`, under the same condition as `ragged`."""
        return self.mixed(len(at_least), sequences, context_tokens, moments)

    def prompt_ticks(self, sequences: int, context_tokens: int, moments: Moments) -> float:
        """Ticks of attention in a step with prefill, the decoding sequences' included."""
        chunks, new_tokens, history_tokens, pairs, _ = moments
        history = history_tokens / chunks
        size = min(max(2.0 * (pairs / new_tokens - history) - 1.0, new_tokens / chunks), float(new_tokens))
        attention = self._attention(sequences, size, history, context_tokens / sequences if sequences else 0.0)
        others = new_tokens / size - 1.0
        return attention + others * self._attention(0, size, history, 0.0) if others > 0.0 else attention

    def decode_attention_s(self, sequences: int, context: Floats) -> Floats:
        """Seconds of attention of decoding sequences alone, over their total context."""
        mean, profile = np.asarray(context / sequences), self._profile
        padded = int(np.asarray(self.engine.padded_tokens(sequences)))
        uniform = profile.attention.decode_s(sequences, mean)
        return self._scale * profile.straggled_s(sequences, padded, uniform, mean, self._lead_tokens(sequences))

    def launch_ticks(self, tokens: int, *, uniform: bool) -> int:
        """Ticks to launch a pass over so many query tokens, of decoding sequences alone or not."""
        full_graph = self.engine.full_graph
        return round(float(self.engine.launch_s(self._layers, tokens, uniform, full_graph)) * TICKS_PER_S)

    def _attention(self, sequences: int, chunk: float, history: float, context: float) -> float:
        """Ticks of attention over one chunk and the decodes beside it, trilinear in the table of this batch."""
        table = self._beside(sequences)
        i, x = segment(self._axes[0], chunk)
        j, y = segment(self._axes[1], history)
        k, z = segment(self._axes[2], context)

        def along(i: int, j: int) -> float:
            return table[i, j, k] * (1.0 - z) + table[i, j, k + 1] * z

        below = (1.0 - y) * along(i, j) + y * along(i, j + 1)
        above = (1.0 - y) * along(i + 1, j) + y * along(i + 1, j + 1)
        return (1.0 - x) * below + x * above

    def _tabulate_beside(self, sequences: int) -> Cells:
        """A view of the table: few of its entries are ever read."""
        seconds = self._profile.attention.beside(sequences)
        seconds = seconds + float(self._profile.mixed_straggler_s(sequences)) * self._lead_tokens(sequences)
        return cast("Cells", np.ascontiguousarray(seconds * self._scale * TICKS_PER_S).data)

    def _tabulate_decode(self, sequences: int, drafts: int) -> Lines:
        _refuse_drafts(drafts)
        engine = self.engine
        fixed = (self.token_ticks[sequences] + self.row_ticks[sequences]) / TICKS_PER_S
        launch_s = engine.launch_s(self._layers, sequences, 1, engine.full_graph)
        host_s = self.host_ticks[sequences] / TICKS_PER_S

        def seconds(context: np.ndarray) -> Floats:
            return np.maximum(fixed + self.decode_attention_s(sequences, context), launch_s) + host_s

        return Lines.through(self.bounds, seconds)


def _refuse_drafts(drafts: int) -> None:
    if drafts:
        raise ValueError(f"a layer profile prices no speculation, got {drafts} drafts; take cost=fitted or turn SD off")
