"""Every draft length that could be advised, run on the same requests: off, each fixed length, the table by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sim.advise.exports import Policy, vllm_config
from sim.advise.load import load_of
from sim.advise.policy import advised_ranges
from sim.advise.static import StaticBatches, mean_context_tokens, speculation_of, with_drafts
from sim.config import Experiment
from sim.errors import InfeasibleError
from sim.metrics.summary import speedup
from sim.request import Requests
from sim.result import Result
from sim.run import simulate
from sim.serving.kv import KvLayout
from sim.speculation.batch_length import TableByBatch
from sim.speculation.length import Fixed, Length

Started = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drafted:
    """A drafter that could be advised.

    Attributes:
        name: as the user calls it.
        experiment: with it, at the longest draft length considered.
        acceptance_known: whether its acceptance was given; else nothing is claimed of its gain.
        acceptance_source: where the acceptance comes from, in words.
    """

    name: str
    experiment: Experiment
    acceptance_known: bool = True
    acceptance_source: str = "as given"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A simulated candidate: a drafter with a length policy.

    Attributes:
        drafted: the drafter.
        result: its run.
        gain: how many times better than without SD: `tpot`, `e2e` (of their means) and `throughput`.
    """

    drafted: Drafted
    result: Result
    gain: dict[str, float]

    @property
    def length(self) -> Policy:
        """Its draft lengths."""
        length = speculation_of(self.result.experiment).length
        assert isinstance(length, Policy)
        return length

    @property
    def label(self) -> str:
        """Drafter and lengths, in words."""
        return f"{self.drafted.name}, {length_label(self.length)}"


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """All candidates under one stream.

    Attributes:
        plain: the run without SD.
        entries: drafter by drafter, fixed lengths before the table.
        infeasible: label of a candidate -> why it cannot run.
        objective: the gain that decides: `e2e` under an open stream, `throughput` where the clients wait or all come
            at once.
    """

    plain: Result
    entries: list[Entry] = field(default_factory=list)
    infeasible: dict[str, str] = field(default_factory=dict)
    objective: str = "e2e"

    def best(self, *, fixed: bool = False) -> Entry | None:
        """The candidate of the largest gain, whether or not that pays; of the fixed lengths alone if asked for."""
        found = [entry for entry in self.entries if not fixed or isinstance(entry.length, Fixed)]
        return max(found, key=lambda entry: entry.gain[self.objective], default=None)

    def advised(self, within: float, *, fixed: bool = False) -> Entry | None:
        """What may be run, of the fixed lengths alone if asked for; None for no SD.

        Of the candidates within `within` of the largest gain, under an open stream also of the best mean TPOT among
        these: a table, for it was chosen over all batch sizes and the best fixed length at this load alone; else the
        best of them.
        """
        best = self.best(fixed=fixed)
        if best is None or best.gain[self.objective] <= 1.0:
            return None
        least = max(1.0, (1.0 - within) * best.gain[self.objective])
        among = [entry for entry in self.entries if not fixed or isinstance(entry.length, Fixed)]
        near = [entry for entry in among if entry is best or entry.gain[self.objective] > least]
        if self.objective == "e2e":
            tpot = max(entry.gain.get("tpot", 1.0) for entry in near)
            near = [entry for entry in near if entry.gain.get("tpot", 1.0) >= (1.0 - within) * tpot]
        tables = [entry for entry in near if isinstance(entry.length, TableByBatch)]
        return max(tables or near, key=lambda entry: entry.gain[self.objective])


def hold(experiment: Experiment, drafters: list[Drafted], requests: Requests, started: Started) -> Contest:
    """Run everything.

    Args:
        experiment: the deployment without SD.
        drafters: those whose acceptance is known.
        requests: the stream that all of them serve.
        started: hears what runs next.

    Raises:
        InfeasibleError: the deployment cannot run without SD.
    """
    started("no SD")
    objective = "throughput" if load_of(requests).kind == "concurrency" else "e2e"
    contest = Contest(plain=simulate(experiment, requests), objective=objective)
    before = contest.plain.summary()
    for drafted in drafters:
        for candidate in candidates(drafted, requests, contest.plain.kv, saturated=objective == "throughput"):
            label = f"{drafted.name}, {length_label(speculation_of(candidate).length)}"
            started(label)
            try:
                result = simulate(candidate, requests)
            except InfeasibleError as error:
                contest.infeasible[label] = str(error)
                continue
            contest.entries.append(Entry(drafted, result, speedup(before, result.summary())))
    return contest


def candidates(drafted: Drafted, requests: Requests, kv: KvLayout, *, saturated: bool) -> list[Experiment]:
    """Each fixed length, then the table where it says more than a fixed length does.

    No table where no engine runs one: ranks that step together (vLLM ignores it there), and trees (vLLM drafts chains).

    Args:
        drafted: the drafter.
        requests: the stream.
        kv: the KV pool, which bounds the batches a table need tell apart.
        saturated: whether throughput decides.
    """
    experiment = drafted.experiment
    fixed = [with_drafts(experiment, drafts) for drafts in range(1, experiment.drafts + 1)]
    chain = vllm_config(speculation_of(experiment).drafter, Fixed(drafts=1), experiment.model) is not None
    if not chain or experiment.cluster.data_parallel > 1:
        return fixed
    table = table_of(experiment, requests, kv, saturated=saturated)
    if table is None:
        return fixed
    return [*fixed, replace(experiment, speculation=replace(speculation_of(experiment), length=table))]


def table_of(experiment: Experiment, requests: Requests, kv: KvLayout, *, saturated: bool) -> TableByBatch | None:
    """The advised lengths by batch; None where one length, or none, is best at every batch that can run."""
    static, context = StaticBatches.of(experiment, requests), mean_context_tokens(requests)
    most = min(experiment.scheduler.max_seqs, max(1, kv.blocks // kv.blocks_for(context)))
    ranges = advised_ranges(static, context, most, saturated=saturated)
    ranges[-1][1] = experiment.scheduler.max_seqs
    return TableByBatch(ranges=ranges) if len({drafts for _, _, drafts in ranges}) > 1 else None


def length_label(length: Length) -> str:
    """A length policy in words."""
    if isinstance(length, TableByBatch):
        return "table by batch"
    return drafts_in_words(length.most_drafts)


def drafts_in_words(drafts: int) -> str:
    """A number of drafts."""
    return f"{drafts} draft{'s' if drafts > 1 else ''}"
