"""Settings of disaggregated serving: the pool of replicas that prefills, and how KV leaves it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.hardware import Cluster, Link, read_gpu, read_link
from sim.model import Model
from sim.serving.prefill_first import StaticBatch
from sim.serving.router import PrefixAware, Router
from sim.serving.scheduler import Scheduler
from sim.speculation.draft import Drafter

DRAFT_KV = ("transferred", "recomputed")


@dataclass(kw_only=True, slots=True)
class Disaggregation:
    """A pool that prefills beside `cluster`, whose replicas then only decode, with the experiment's `router`.

    See `sim.serving.decode_rank` for how a request gets from one to the other.

    Attributes:
        prefill_replicas: replicas that prefill, >= 1.
        prefill_router: which of them a request goes to.
        prefill_cluster: what they run on; null for the same as `cluster`. Its own `replicas` stays 1.
        link: between the pools, one per GPU, a name of `hardware_specs/link`.
        bandwidth_share: share of the link's peak that transfers reach, in (0, 1]; 1 is the peak, not a measurement.
        overlap: the KV of a layer is sent while later layers of the last step of a prefill are computed (as Splitwise,
            arXiv 2311.18677, section 4.3); otherwise once the prefill is over (vLLM's NIXL connector).
        draft_kv: `transferred` with the target's, or `recomputed` by the draft model on the decode side, which then is
            the only one to hold it. No effect without a drafter that has KV of its own.

    Raises:
        ValueError: a field out of bounds.
    """

    prefill_replicas: int
    prefill_router: Router
    link: str
    prefill_cluster: Cluster | None = None
    bandwidth_share: float = 1.0
    overlap: bool = False
    draft_kv: str = "transferred"

    def __post_init__(self) -> None:
        if not 1 <= self.prefill_replicas <= 4096:
            raise ValueError(f"disaggregation.prefill_replicas must lie in [1, 4096], got {self.prefill_replicas}")
        if not 0 < self.bandwidth_share <= 1:
            raise ValueError(f"disaggregation.bandwidth_share must lie in (0, 1], got {self.bandwidth_share}")
        if self.draft_kv not in DRAFT_KV:
            raise ValueError(f"disaggregation.draft_kv must be one of {', '.join(DRAFT_KV)}, got {self.draft_kv!r}")
        if self.prefill_cluster is not None and self.prefill_cluster.replicas != 1:
            raise ValueError(
                "disaggregation.prefill_cluster.replicas must be 1, got "
                f"{self.prefill_cluster.replicas}: disaggregation.prefill_replicas says how many there are"
            )

    def prefill_side(self, cluster: Cluster) -> Cluster:
        """The prefill pool as a cluster of its own."""
        return replace(self.prefill_cluster or cluster, replicas=self.prefill_replicas)

    def network(self) -> Link:
        """The link between the pools."""
        return read_link(self.link, "disaggregation.link")

    def check(self, cluster: Cluster, scheduler: Scheduler, router: Router) -> None:
        """Refuse what does not go together; arguments as in Experiment.

        Raises:
            ValueError: it does not; the message says why.
        """
        prefill = self.prefill_side(cluster)
        for name, side in (("cluster", cluster), ("disaggregation.prefill_cluster", prefill)):
            if side.gpus_per_replica != side.tensor_parallel:
                raise ValueError(
                    f"{name} must have data_parallel = pipeline_parallel = 1 with disaggregation (others are not "
                    f"modelled), got {side.data_parallel} and {side.pipeline_parallel}"
                )
        if prefill.block_tokens != cluster.block_tokens:
            raise ValueError(
                f"disaggregation.prefill_cluster.block_tokens must be cluster.block_tokens = {cluster.block_tokens}, "
                f"got {prefill.block_tokens}: KV is sent block by block"
            )
        if isinstance(scheduler, StaticBatch):
            name = type(scheduler).__name__
            message = "decodes the batch it has prefilled, which disaggregation takes apart; choose another"
            raise ValueError(f"scheduler {name} {message}")  # noqa: TRY004 - the kind is the setting
        if isinstance(router, PrefixAware):
            raise ValueError(  # noqa: TRY004 - the kind is the setting
                "router PrefixAware has no effect with disaggregation: replicas that only decode keep no prefix cache; "
                "use it as disaggregation.prefill_router"
            )
        self._check_link(cluster, prefill)

    def check_drafter(self, drafter: Drafter, target: Model) -> None:
        """Refuse a drafter that could not compute its KV where `draft_kv` wants it to.

        Raises:
            ValueError: it could not, or has none.
        """
        name = type(drafter).__name__
        if self.draft_kv == "transferred":
            return
        if drafter.reads_hidden_states:
            raise ValueError(
                f"disaggregation.draft_kv must be transferred for {name}: its KV comes from the target's hidden "
                "states, which stay on the prefill side"
            )
        if drafter.draft_for(target) is None:
            raise ValueError(
                f"disaggregation.draft_kv has no effect for {name}, which has no KV, got {self.draft_kv!r}; leave it "
                "out"
            )

    def _check_link(self, cluster: Cluster, prefill: Cluster) -> None:
        """A link inside a node joins no more GPUs than a node has."""
        link = self.network()
        node = min(read_gpu(side.gpu).max_gpus_per_node for side in (cluster, prefill))
        if link.kind != "infiniband" and cluster.gpus + prefill.gpus > min(node, link.max_gpus or node):
            raise ValueError(
                f"disaggregation.link {link.name} joins at most {min(node, link.max_gpus or node)} GPUs of one node, "
                f"the pools have {prefill.gpus} + {cluster.gpus}; choose an infiniband link"
            )
