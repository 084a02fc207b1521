"""Serving at a fixed batch in closed form: one deployment's step costs, and the tokens per second they leave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from sim.cost.host import Engine
from sim.cost.pricing import Fitted
from sim.cost.routing import Routing
from sim.cost.shape import StepShape
from sim.cost.step import StepCost
from sim.hardware import Cluster, resolve
from sim.model import Model
from sim.speculation.draft import Drafter


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployment:
    """A target on GPUs under an engine, that serves requests of one size.

    Attributes:
        model, gpu, tensor_parallel: what runs where.
        engine: host constants.
        kernels: whose kernel constants.
        routing: of tokens to experts.
        prompt_tokens, output_tokens: means of the requests.
    """

    model: Model
    gpu: str
    tensor_parallel: int
    engine: Engine
    kernels: str
    routing: Routing
    prompt_tokens: int
    output_tokens: int

    @cached_property
    def plain(self) -> StepCost:
        """Steps without SD."""
        gpu, link = resolve(Cluster(gpu=self.gpu, tensor_parallel=self.tensor_parallel))
        fitted = Fitted(kernels=self.kernels)
        target = fitted.forward(self.model, gpu, link, self.tensor_parallel, False, self.routing)
        return StepCost(target=target, engine=self.engine)

    def drafting(self, drafter: Drafter, drafts: int) -> StepCost:
        """Steps of rounds with `drafts` drafts."""
        drafter.check_length(drafts)
        plain, draft = self.plain, None
        model = drafter.draft_for(self.model)
        if model is not None:
            draft = replace(plain.target, model=model, tensor_parallel=drafter.ranks(self.tensor_parallel))
        width, passes = drafter.verify_tokens(drafts), drafter.drafting(drafts)
        return replace(plain, width=width, draft=draft, drafting=passes)

    def round_s(self, cost: StepCost, sequences: int, width: float = 0.0) -> float:
        """Seconds of a step over `sequences` halfway through their outputs; `width` where it is not the cost's."""
        context = sequences * (self.prompt_tokens + self.output_tokens // 2)
        shape = StepShape(sequences=sequences, width=width or cost.width, context_tokens=context)
        return float(cost.seconds(shape, not width))

    def prefill_s(self, cost: StepCost, sequences: int) -> float:
        """Seconds that one more prompt adds to such a step."""
        prompt, context = self.prompt_tokens, sequences * (self.prompt_tokens + self.output_tokens // 2)
        decoding = StepShape(sequences=sequences, width=cost.width, context_tokens=context)
        mixed = replace(
            decoding, chunks=1, prefill_tokens=prompt, prefill_pairs=prompt * (prompt + 1) // 2, completed=1
        )
        return float(cost.seconds(mixed)) - float(cost.seconds(decoding))

    def tokens_per_s(self, cost: StepCost, sequences: int, length: float = 1.0, width: float = 0.0) -> float:
        """Output tokens per second with `sequences` in flight that emit `length` tokens per round.

        A sequence that ends makes room for the next, whose prompt is computed beside the others' rounds.
        """
        emitted = sequences * length
        ended = emitted / self.output_tokens
        return emitted / (self.round_s(cost, sequences, width) + ended * self.prefill_s(cost, sequences))
