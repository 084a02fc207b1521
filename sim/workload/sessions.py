"""Sessions: conversations whose every turn sends the whole history again, over system prompts that are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.request import Requests
from sim.workload.arrivals import ARRIVALS, arrival_times
from sim.workload.base import Workload, generator, require_at_least, require_positive, require_settings
from sim.workload.chains import Chains, Whole
from sim.workload.curve import RateCurve
from sim.workload.durations import Durations
from sim.workload.lengths import Lengths
from sim.workload.prompts import SystemPrompts

_ARRIVALS = {
    kind: tuple("sessions_per_s" if name == "rate_per_s" else name for name in needs)
    for kind, needs in ARRIVALS.items()
    if kind != "closed_loop"
}


@dataclass(kw_only=True, slots=True)
class Sessions(Workload):
    """`num_sessions` conversations; the next turn comes a think time after the answer to the last.

    The prompt of a turn is the system prompt, then every earlier turn's prompt and answer, then the new tokens. Block
    ids name full blocks only, so the ids of a turn's prompt begin with all ids of the turn before; where an answer
    fills blocks, the next prompt holds them under the ids of `Requests.generated_block_ids`. With turns fixed at 1
    these are single requests with shared system prompts.

    Attributes:
        num_sessions: >= 1.
        arrival: how sessions start: poisson, gamma, constant or batch (see `sim.workload.arrivals`).
        sessions_per_s: mean sessions started per second, > 0; poisson, gamma, constant.
        cv: coefficient of variation of the gaps between starts, > 0; gamma.
        curve: how the rate of starts goes up and down, null for a steady one; poisson, gamma, constant.
        turns: distribution of the turns of a session (`Lengths` counts turns here).
        think: from the end of an answer to the next turn; null where turns is fixed at 1.
        prompt: new tokens of each turn.
        output: tokens of each answer.
        block_tokens: tokens per block id, >= 1; 16 is the block size of vLLM.
        system: shared system prompts, null for none.
    """

    num_sessions: int
    arrival: str
    sessions_per_s: float | None = None
    cv: float | None = None
    curve: RateCurve | None = None
    turns: Lengths
    think: Durations | None = None
    prompt: Lengths
    output: Lengths
    block_tokens: int = 16
    system: SystemPrompts | None = None

    def __post_init__(self) -> None:
        settings = {name: getattr(self, name) for name in ("sessions_per_s", "cv", "curve")}
        require_settings("workload", "arrival", self.arrival, settings, _ARRIVALS)
        require_at_least("workload.num_sessions", self.num_sessions, 1)
        require_positive("workload.sessions_per_s", self.sessions_per_s)
        require_positive("workload.cv", self.cv)
        require_at_least("workload.block_tokens", self.block_tokens, 1)
        parts = {name: getattr(self, name) for name in ("curve", "turns", "think", "prompt", "output", "system")}
        for name, part in parts.items():
            if part is not None:
                part.check(f"workload.{name}")
        single = self.turns.kind == "fixed" and self.turns.tokens == 1
        if single and self.think is not None:
            raise ValueError("workload.think has no effect with turns fixed at 1; leave it out or set it to null")
        if not single and self.think is None:
            raise ValueError("workload.think must be set where sessions have several turns, got none")

    def requests(self, seed: int) -> Requests:
        n = self.num_sessions
        system_tokens = self.system.lengths(seed) if self.system is not None else np.zeros(1, np.int64)
        system = self.system.choose(n, seed) if self.system is not None else np.zeros(n, np.int64)
        starts_s = arrival_times(
            self.arrival, n, generator(seed, "arrivals"), rate_per_s=self.sessions_per_s, cv=self.cv, curve=self.curve
        )
        session, columns = self._turns(seed, starts_s, system_tokens[system])
        blocks = _Blocks(self.block_tokens, system_tokens, system, session, columns)
        single = bool((columns["after"] < 0).all())
        return Requests(
            **columns | ({"after": None, "think_s": None} if single else {}),
            block_ids=blocks.prompts(),
            generated_block_ids=None if single else blocks.answers(),
            block_tokens=self.block_tokens,
        )

    def _turns(self, seed: int, starts_s: NDArray[np.float64], history: Whole) -> tuple[Whole, dict[str, Any]]:
        """Session (rows,) and columns of all turns; `history` is what a session's next prompt opens with.

        Every turn has generators of its own, so neither more sessions nor more turns change what the others drew.
        """
        n = self.num_sessions
        turns = self.turns.sample(n, generator(seed, "turns"))
        chains = Chains(starts_s.copy())
        history = history.copy()
        for turn in range(int(turns.max())):
            alive = np.flatnonzero(turns > turn)
            upto = int(alive[-1]) + 1
            prompt = history[alive] + self.prompt.sample(upto, generator(seed, "prompt", turn))[alive]
            output = self.output.sample(upto, generator(seed, "output", turn))[alive]
            think_s = np.zeros(len(alive))
            if self.think is not None:
                think_s = self.think.sample(upto, generator(seed, "think", turn))[alive]
            chains.add(alive, think_s, prompt, output)
            history[alive] = prompt + output
        return chains.columns()


class _Blocks:
    """Ids of full blocks: those of the system prompts come first, then each session's own in one run."""

    def __init__(
        self, block_tokens: int, system_tokens: Whole, system: Whole, session: Whole, columns: dict[str, Any]
    ) -> None:
        shared = system_tokens // block_tokens
        self._system_first = np.cumsum(shared) - shared
        self._shared = shared[system][session]
        self._system = self._system_first[system][session]
        self._prompt = columns["prompt_tokens"] // block_tokens
        # The last token of an answer has no KV, so it completes no block.
        self._answer = (columns["prompt_tokens"] + columns["output_tokens"] - 1) // block_tokens
        most = np.zeros(len(system), np.int64)
        np.maximum.at(most, session, self._answer)
        own = most - shared[system]
        first = int(shared.sum()) + np.cumsum(own) - own
        self._own = (first - shared[system])[session]

    def prompts(self) -> tuple[Whole, ...]:
        """Ids of every prompt's full blocks."""
        rows = zip(self._shared.tolist(), self._system.tolist(), self._own.tolist(), self._prompt.tolist(), strict=True)
        return tuple(
            np.concatenate((np.arange(system, system + shared), np.arange(own + shared, own + blocks)))
            for shared, system, own, blocks in rows
        )

    def answers(self) -> tuple[Whole, ...]:
        """Ids of the blocks that every answer fills."""
        rows = zip(self._own.tolist(), self._prompt.tolist(), self._answer.tolist(), strict=True)
        return tuple(np.arange(own + prompt, own + answer) for own, prompt, answer in rows)
