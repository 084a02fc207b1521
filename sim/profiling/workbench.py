"""From a case to its timings: single ops, whole steps on a model built once, SD rounds, collectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from sim.model import Model
from sim.profiling.cases import Case, Shape
from sim.profiling.collectives import Group
from sim.profiling.engines import PAGE_TOKENS
from sim.profiling.ops import build
from sim.profiling.place import Place
from sim.profiling.speculative import SpeculativeLoop, draw_accepted
from sim.profiling.timing import Call, Timing, measure
from sim.profiling.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Measured:
    """A timing and the columns that only the run told."""

    timing: Timing
    columns: Shape = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case with its tensors in place, and one call of it to profile where this process makes the calls."""

    measure: Callable[[], list[Measured]]
    call: Call | None


class Workbench:
    """Prepares cases; keeps the models of whole steps between them.

    Args:
        place: where.
        model, draft: what whole steps are built from.
        repeats: samples of every timing.
        acceptance: probability, forced, that a draft is accepted after all before it.

    Raises:
        ValueError: acceptance is no probability.
    """

    def __init__(self, place: Place, model: Model, draft: Model | None, repeats: int, acceptance: float) -> None:
        if not 0 <= acceptance <= 1:
            raise ValueError(f"acceptance must lie in [0, 1], got {acceptance}")
        self.place, self.model, self.draft = place, model, draft
        self.repeats, self.acceptance = repeats, acceptance
        self._built: dict[tuple[str, int], Transformer] = {}
        self._group: Group | None = None

    def prepare(self, case: Case) -> Prepared:
        """Tensors and callable of the case.

        Raises:
            torch.OutOfMemoryError: they do not fit.
            ValueError: the model has something that cannot be built.
        """
        if case.op in {"target_step", "draft_step"}:
            return self._step(case)
        if case.op == "sd_round":
            return self._round(case)
        if case.op in {"all_reduce", "all_gather"}:
            return self._collective(case)
        self.clear()
        call = build(case, self.place)
        graph = case.kernel != "loop"
        return Prepared(lambda: [Measured(measure(call, self.place, self.repeats, graph=graph))], call)

    def clear(self) -> None:
        """Let go of the models and of the processes of collectives."""
        self._built.clear()
        if self._group is not None:
            self._group.close()
            self._group = None
        if self.place.is_cuda:
            torch.cuda.empty_cache()

    def _collective(self, case: Case) -> Prepared:
        gpus, message_bytes = case.integer("gpus"), case.integer("message_bytes")
        if self._group is None or self._group.gpus != gpus:
            self.clear()
            self._group = Group(gpus, self.place)
        group = self._group

        def run() -> list[Measured]:
            try:
                return [Measured(group.measure(case.op, message_bytes, self.repeats))]
            except RuntimeError:
                self.clear()  # ranks that lost each other answer the next question with the last answer
                raise

        return Prepared(run, None)

    def _step(self, case: Case) -> Prepared:
        role = case.op.removesuffix("_step")
        self._built = {about: built for about, built in self._built.items() if about[0] == role}
        built = self._transformer(role, case, case.integer("layers"))
        batch, width, context = (case.integer(name) for name in ("batch", "width", "context_tokens"))
        cache = built.cache(batch, _pages(context + width))
        tokens = self.place.integers(built.model.vocab, batch, width)
        cached = torch.full((batch,), context, dtype=torch.int32, device=self.place.device)
        chosen: list[torch.Tensor] = []
        built.forward(tokens, cached, cache, chosen)
        distinct = [len(experts.unique()) for experts in chosen]
        columns: Shape = {"distinct_experts": sum(distinct) / len(distinct)} if distinct else {}

        def call() -> torch.Tensor:
            return built.forward(tokens, cached, cache)

        def run() -> list[Measured]:
            timing = measure(call, self.place, self.repeats, flush=False, graph=not built.waits)
            return [Measured(timing, columns)]

        return Prepared(run, call)

    def _round(self, case: Case) -> Prepared:
        assert self.draft is not None
        target = self._transformer("target", case, case.integer("layers"))
        draft = self._transformer("draft", case, self.draft.layer_count)
        batch, width, context = (case.integer(name) for name in ("batch", "width", "context_tokens"))

        rounds = SpeculativeLoop.WARM_UP_ROUNDS + self.repeats
        loop = SpeculativeLoop(target, draft, batch, width - 1, context, _pages(context + (rounds + 2) * width))
        forced = draw_accepted(rounds, batch, width - 1, self.acceptance).to(self.place.device)
        return Prepared(
            lambda: [Measured(timing, {"layer": phase}) for phase, timing in loop.time_rounds(forced).items()],
            loop.round_once,
        )

    def _transformer(self, role: str, case: Case, layers: int) -> Transformer:
        about = (role, layers)
        if about not in self._built:
            model = self.model if role == "target" else self.draft
            assert model is not None
            attention, _, experts = case.kernel.partition("+")
            ranks = case.integer("tensor_parallel")
            self._built[about] = Transformer(model, self.place, ranks, layers, attention, experts)
        return self._built[about]


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
