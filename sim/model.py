"""A model as layers of data: what its weights, its KV cache and its arithmetic are, whatever the family.

A new family is a YAML in `conf/model/` or a Hugging Face `config.json` (`sim.huggingface`), not a class. All counts are
whole-model; how they are cut over GPUs is `sim.cost`'s business, helped by `Linear.split`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sim.attention import Attention, Linear, check
from sim.data import data_dir, names_in, read_named
from sim.layers import Ffn, Layers

__all__ = ["Attention", "Ffn", "Layers", "Linear", "Model", "known_models", "read_model", "with_sparsity"]


@dataclass(kw_only=True, slots=True)
class Model:
    """A transformer as plain data; checked when built, never changed.

    Attributes:
        name: published name.
        source: where its numbers come from.
        hidden: model width.
        vocab: vocabulary rows of the embedding and the LM head.
        layers: the runs of layers, a prediction module (MTP) not among them.
        tied_embeddings: the LM head is the embedding matrix.
        embedding_dim: width of the embedding where it is narrower than the model (OPT-350M), else 0.
        max_context_tokens: longest prompt plus output.
        learned_positions: rows of a learned position table (OPT), else 0.
        mtp_layers: multi-token-prediction modules the checkpoint holds.
        weight_bytes: bytes per weight as served (2: bf16, 1: fp8, 0.5: 4 bit).
        expert_weight_bytes: bytes per weight of the routed experts where they differ (gpt-oss: 0.53125, MXFP4 with its
            scales); 0 means weight_bytes.
        embedding_bytes: bytes per weight of the embedding and the LM head, which quantised checkpoints leave in bf16.
        kv_bytes: bytes per KV element.
        state_bytes: bytes per element of the state of linear attention layers, else 0.
        total_params, active_params: published figures, for the check in the tests; 0 where none is published.
        active_tables: vocabulary tables the publisher counts as active: 0 none, 1 the LM head, 2 the embedding too.
        draft: catalogue name of the draft model usually paired with it ("" for none).

    Raises:
        ValueError: a bound is broken, or a field is set that has no effect.
    """

    name: str
    source: str = ""
    hidden: int
    vocab: int
    layers: list[Layers] = field(default_factory=list)
    tied_embeddings: bool = False
    embedding_dim: int = 0
    max_context_tokens: int
    learned_positions: int = 0
    mtp_layers: int = 0
    weight_bytes: float = 2.0
    expert_weight_bytes: float = 0.0
    embedding_bytes: float = 2.0
    kv_bytes: float = 2.0
    state_bytes: float = 0.0
    total_params: float = 0.0
    active_params: float = 0.0
    active_tables: int = 0
    draft: str = ""

    def __post_init__(self) -> None:
        check(bool(self.name), "model.name must not be empty")
        for name in ("hidden", "vocab", "max_context_tokens"):
            check(getattr(self, name) >= 1, f"model.{name} must be >= 1, got {getattr(self, name)}")
        for name in ("mtp_layers", "total_params", "active_params"):
            check(getattr(self, name) >= 0, f"model.{name} must be >= 0, got {getattr(self, name)}")
        check(bool(self.layers) or self.layerless, "model.layers must hold at least one run of layers, got none")
        self._check_widths()
        self._check_bytes()
        self._check_published()

    def _check_widths(self) -> None:
        check(
            0 <= self.embedding_dim < self.hidden,
            f"model.embedding_dim must lie in [0, hidden={self.hidden}) (0: hidden), got {self.embedding_dim}",
        )
        check(
            self.learned_positions == 0 or self.learned_positions >= self.max_context_tokens,
            f"model.learned_positions must be 0 or >= max_context_tokens={self.max_context_tokens}, "
            f"got {self.learned_positions}",
        )

    def _check_bytes(self) -> None:
        for name in ("weight_bytes", "embedding_bytes", "kv_bytes"):
            check(0 < getattr(self, name) <= 4, f"model.{name} must lie in (0, 4], got {getattr(self, name)}")
        for name in ("expert_weight_bytes", "state_bytes"):
            check(0 <= getattr(self, name) <= 4, f"model.{name} must lie in [0, 4], got {getattr(self, name)}")
        check(
            self.is_moe or self.expert_weight_bytes == 0,
            f"model.expert_weight_bytes has no effect without moe layers, got {self.expert_weight_bytes}; remove it",
        )
        linear = any(run.attention.kind == "linear" for run in self.layers)
        check(
            linear == (self.state_bytes > 0),
            f"model.state_bytes must be > 0 with linear attention layers and 0 without, got {self.state_bytes}",
        )

    def _check_published(self) -> None:
        check(self.active_tables in (0, 1, 2), f"model.active_tables must be 0, 1 or 2, got {self.active_tables}")
        check(
            self.active_params > 0 or self.active_tables == 0,
            f"model.active_tables has no effect without active_params, got {self.active_tables}; remove it",
        )
        check(
            self.total_params == 0 or self.active_params <= self.total_params,
            f"model.active_params must be <= total_params={self.total_params:g}, got {self.active_params:g}",
        )

    @property
    def is_moe(self) -> bool:
        """Any layer has routed experts."""
        return any(run.ffn.kind == "moe" for run in self.layers)

    @property
    def layer_count(self) -> int:
        """Layers, prediction modules apart."""
        return sum(run.count for run in self.layers)

    @property
    def expert_bytes(self) -> float:
        """Bytes per weight of a routed expert."""
        return self.expert_weight_bytes or self.weight_bytes

    @property
    def embedding_width(self) -> int:
        """Width of one row of the embedding and the LM head."""
        return self.embedding_dim or self.hidden

    @property
    def own_tables(self) -> int:
        """Vocabulary tables it holds: embedding and LM head, one where they are tied."""
        return 1 if self.tied_embeddings else 2

    @property
    def layerless(self) -> bool:
        """Whether it may go without layers; only draft heads may."""
        return False

    @property
    def modules(self) -> int:
        """Copies of the layers that are held and take turns; only draft heads have several."""
        return 1

    def first_linears(self) -> list[Linear]:
        """Matrices of a draft head's first pass only; none for other models."""
        return []

    def outer_linears(self) -> list[Linear]:
        """The matrices outside the layers: the LM head last, before it the projections of a narrower embedding."""
        head = Linear("lm_head", self.vocab, self.embedding_width, "column")
        if not self.embedding_dim:
            return [head]
        return [
            Linear("project_in", self.hidden, self.embedding_dim, "none"),
            Linear("project_out", self.embedding_dim, self.hidden, "none"),
            head,
        ]


def known_models() -> list[str]:
    """Names in the catalogue, sorted."""
    return names_in(data_dir("conf") / "model")


def read_model(name: str) -> Model:
    """The catalogue's model `name`.

    Raises:
        ValueError: the name is unknown (the message lists the known ones) or the file is malformed.
    """
    return read_named(data_dir("conf") / "model", name, Model, "model")


def with_sparsity(
    model: Model,
    experts: int | None = None,
    experts_per_token: int | None = None,
    expert_width: int | None = None,
    shared_width: int | None = None,
) -> Model:
    """The model with every MoE layer's routing or widths changed; what is None stays, published figures go.

    Raises:
        ValueError: the model has no MoE layer, or a bound of `Ffn` is broken.
    """
    check(model.is_moe, f"model {model.name} has no moe layer whose sparsity could change; choose a MoE model")
    asked = {
        "experts": experts,
        "experts_per_token": experts_per_token,
        "expert_width": expert_width,
        "shared_width": shared_width,
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    layers = [
        replace(run, ffn=replace(run.ffn, **changes)) if run.ffn.kind == "moe" else run  # type: ignore[arg-type]
        for run in model.layers
    ]
    return replace(model, layers=layers, total_params=0.0, active_params=0.0, active_tables=0)
