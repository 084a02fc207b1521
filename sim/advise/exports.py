"""An advised drafter and its draft lengths as the engines take them: vLLM's `--speculative-config`, SGLang's flags.

Keys of vLLM as in `vllm/config/speculative.py`: `num_speculative_tokens` is the most that is ever drafted, and
`num_speculative_tokens_per_batch_size` holds rows [first, last, drafts] from batch 1 on; the last row holds beyond its
end, and the table has no effect under data parallelism. Flags of SGLang as in its `server_args.py`:
`--speculative-num-draft-tokens` counts every verified token, the last committed one among them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sim.model import Model
from sim.speculation.batch_length import TableByBatch
from sim.speculation.draft import Drafter, DraftModel, PlacedDrafter
from sim.speculation.eagle import Eagle
from sim.speculation.length import Fixed
from sim.speculation.mtp import Mtp
from sim.speculation.ngram import NGram
from sim.speculation.parallel import Medusa, ParallelDraft

Policy = Fixed | TableByBatch
"""The draft length policies that both engines and this simulator know."""

LOOKUP_TOKENS = 5
"""vLLM's prompt_lookup_min and prompt_lookup_max where neither is set."""

_REPOSITORY = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)")


def vllm_config(drafter: Drafter, length: Policy, target: Model) -> dict[str, Any] | None:
    """The JSON of `--speculative-config`; None where vLLM has nothing like it (trees).

    A head is trained for its target and the catalogue knows none: `model` is then a path to fill in, in capitals.
    """
    if isinstance(drafter, Eagle) and drafter.top_k > 1:
        return None
    config = _vllm_method(drafter, target) | {"num_speculative_tokens": length.most_drafts}
    if isinstance(drafter, PlacedDrafter) and drafter.tensor_parallel:
        config["draft_tensor_parallel_size"] = drafter.tensor_parallel
    if isinstance(length, TableByBatch):
        config["num_speculative_tokens_per_batch_size"] = [list(row) for row in length.ranges]
    return config


def length_of(config: dict[str, Any]) -> Policy:
    """The draft length policy of a `--speculative-config`, as this simulator runs it.

    Raises:
        ValueError: it holds no draft length, or its table has gaps or overlaps.
    """
    most, table = config.get("num_speculative_tokens"), config.get("num_speculative_tokens_per_batch_size")
    if not isinstance(most, int) or most < 1:
        raise ValueError(f"num_speculative_tokens must be a whole number >= 1, got {most!r}")
    if table is None:
        return Fixed(drafts=most)
    length = TableByBatch(ranges=[[int(entry) for entry in row] for row in table])
    if length.most_drafts > most:
        raise ValueError(
            f"num_speculative_tokens_per_batch_size must not ask for more than num_speculative_tokens = {most}, got "
            f"{length.most_drafts}"
        )
    return length


def vllm_command(config: dict[str, Any], target: Model) -> str:
    """What to type, to be pasted into a shell."""
    return f"vllm serve {repository(target)} --speculative-config '{json.dumps(config)}'"


def sglang_flags(drafter: Drafter, drafts: int, target: Model) -> list[str] | None:
    """Flags of one draft length (SGLang has no table by batch); None where SGLang has no such drafter."""
    if isinstance(drafter, Medusa) or (isinstance(drafter, ParallelDraft) and not drafter.block_only):
        return None
    flags = ["--speculative-algorithm", _sglang_algorithm(drafter)]
    head = _head(drafter, target)
    if head is not None:
        flags += ["--speculative-draft-model-path", head]
    if not isinstance(drafter, NGram | ParallelDraft):
        top_k = drafter.top_k if isinstance(drafter, Eagle) else 1
        flags += ["--speculative-num-steps", str(drafts), "--speculative-eagle-topk", str(top_k)]
    flags += ["--speculative-num-draft-tokens", str(drafter.verify_tokens(drafts))]
    if isinstance(drafter, NGram):
        flags += ["--speculative-ngram-max-bfs-breadth", "1"]
    return flags


def repository(model: Model) -> str:
    """The checkpoint's name on Hugging Face, from the model's source; else a path to fill in."""
    found = _REPOSITORY.search(model.source)
    return found[1] if found else f"PATH_OF_{_capitals(model.name)}"


def _vllm_method(drafter: Drafter, target: Model) -> dict[str, Any]:
    head = _head(drafter, target)
    model = {} if head is None else {"model": head}
    match drafter:
        case Eagle():
            return {"method": "eagle3" if drafter.version == 3 else "eagle"} | model
        case ParallelDraft():
            parallel = {} if drafter.block_only else {"parallel_drafting": True}
            return {"method": "dflash" if drafter.block_only else "eagle3"} | model | parallel
        case Medusa():
            return {"method": "medusa"} | model
        case DraftModel():
            return {"method": "draft_model"} | model
        case Mtp():
            return {"method": "mtp"}
        case NGram():
            return {"method": "ngram", "prompt_lookup_min": LOOKUP_TOKENS, "prompt_lookup_max": LOOKUP_TOKENS}
    raise ValueError(f"speculation.drafter {type(drafter).__name__} has no name in vLLM; choose another to export")


def _sglang_algorithm(drafter: Drafter) -> str:
    if isinstance(drafter, Eagle):
        return "EAGLE3" if drafter.version == 3 else "EAGLE"
    names: dict[type[Drafter], str] = {
        Mtp: "EAGLE", NGram: "NGRAM", DraftModel: "STANDALONE", ParallelDraft: "DFLASH"
    }  # fmt: skip
    if type(drafter) not in names:
        raise ValueError(
            f"speculation.drafter {type(drafter).__name__} has no name in SGLang; choose another to export"
        )
    return names[type(drafter)]


def _head(drafter: Drafter, target: Model) -> str | None:
    """Where the drafter's weights are; None for one that has none of its own."""
    if isinstance(drafter, DraftModel):
        return repository(drafter.draft_for(target))
    if isinstance(drafter, Mtp) or drafter.draft_for(target) is None:
        return None
    kind = f"EAGLE{drafter.version}" if isinstance(drafter, Eagle) else type(drafter).__name__.upper()
    return f"PATH_OF_{kind}_HEAD_FOR_{_capitals(target.name)}"


def _capitals(name: str) -> str:
    return re.sub(r"\W+", "_", name).upper()
