"""Multi-token prediction: the modules that some checkpoints (DeepSeek-V3, Qwen3-Next, GLM-4.5) bring with them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.attention import Linear, check
from sim.cost.drafting import Drafting
from sim.layers import Layers
from sim.model import Model
from sim.speculation.draft import PlacedDrafter
from sim.speculation.head import DraftHead


@dataclass(kw_only=True, slots=True)
class Mtp(PlacedDrafter):
    """The checkpoint's own prediction modules, one pass each; longer drafts take the modules again (vLLM, SGLang).

    A module is a layer like the target's last kind, MoE on a MoE target, behind a matrix that joins embedding and
    hidden state; embedding and LM head are the target's.

    Attributes:
        modules: modules used, at most those of the checkpoint.
    """

    modules: int = 1

    def __post_init__(self) -> None:
        PlacedDrafter.__post_init__(self)
        check(self.modules >= 1, f"speculation.drafter.modules must be >= 1, got {self.modules}")

    @property
    def reads_hidden_states(self) -> bool:
        """As its input."""
        return True

    def draft_for(self, target: Model) -> Model:
        """One module, held `modules` times.

        Raises:
            ValueError: the checkpoint holds fewer modules.
        """
        check(
            self.modules <= target.mtp_layers,
            f"speculation.drafter.modules must be <= {target.mtp_layers}, the prediction modules in the checkpoint of "
            f"{target.name}, got {self.modules}" + ("" if target.mtp_layers else "; choose another drafter"),
        )
        last = [run for run in target.layers if run.attention.kind != "linear"][-1]
        return DraftHead(
            name=f"{target.name} MTP",
            hidden=target.hidden,
            vocab=target.vocab,
            max_context_tokens=target.max_context_tokens,
            layers=[Layers(count=1, attention=last.attention, ffn=last.ffn)],
            before_layers=[Linear("eh_proj", target.hidden, 2 * target.hidden, "none")],
            weight_bytes=target.weight_bytes,
            expert_weight_bytes=target.expert_weight_bytes if last.ffn.kind == "moe" else 0.0,
            embedding_bytes=target.embedding_bytes,
            kv_bytes=target.kv_bytes,
            copies=self.modules,
        )

    def drafting(self, drafts: int) -> Drafting:
        """The first pass over the verified positions and the prompts, then drafts - 1 passes of one token."""
        return Drafting(catch_up=True, passes=max(0, drafts - 1), eager=self.eager)
