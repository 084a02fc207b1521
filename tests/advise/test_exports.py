"""What is pasted into vLLM and SGLang."""

from __future__ import annotations

import json

import pytest

from sim import DraftModel, Fixed, load_model
from sim.advise.exports import length_of, repository, sglang_flags, vllm_command, vllm_config
from sim.speculation.batch_length import TableByBatch
from sim.speculation.eagle import Eagle
from sim.speculation.mtp import Mtp
from sim.speculation.ngram import NGram
from sim.speculation.parallel import Medusa, ParallelDraft

QWEN, DEEPSEEK = load_model("qwen3_8b", "model"), load_model("deepseek_v3", "model")
TABLE = TableByBatch(ranges=[[1, 16, 4], [17, 64, 2], [65, 256, 0]])
DFLASH = ParallelDraft(layers=5, features=5, block_tokens=16, block_only=True)
P_EAGLE = ParallelDraft(layers=4, features=3, block_tokens=16)

VLLM = {
    "eagle": (Eagle(version=1), {"method": "eagle", "model": "PATH_OF_EAGLE1_HEAD_FOR_QWEN3_8B"}),
    "eagle3": (Eagle(vocab=32000), {"method": "eagle3", "model": "PATH_OF_EAGLE3_HEAD_FOR_QWEN3_8B"}),
    "draft_model": (DraftModel(), {"method": "draft_model", "model": "Qwen/Qwen3-0.6B"}),
    "on one GPU": (
        DraftModel(tensor_parallel=1),
        {"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "draft_tensor_parallel_size": 1},
    ),
    "ngram": (NGram(match_rate=0.3), {"method": "ngram", "prompt_lookup_min": 5, "prompt_lookup_max": 5}),
    "medusa": (Medusa(), {"method": "medusa", "model": "PATH_OF_MEDUSA_HEAD_FOR_QWEN3_8B"}),
    "dflash": (DFLASH, {"method": "dflash", "model": "PATH_OF_PARALLELDRAFT_HEAD_FOR_QWEN3_8B"}),
    "p_eagle": (
        P_EAGLE,
        {"method": "eagle3", "model": "PATH_OF_PARALLELDRAFT_HEAD_FOR_QWEN3_8B", "parallel_drafting": True},
    ),
}


@pytest.mark.parametrize("name", VLLM)
def test_vllm_keys_of_every_drafter(name):
    drafter, expected = VLLM[name]
    assert vllm_config(drafter, Fixed(drafts=3), QWEN) == expected | {"num_speculative_tokens": 3}


def test_mtp_needs_no_weights_of_its_own():
    assert vllm_config(Mtp(), Fixed(drafts=1), DEEPSEEK) == {"method": "mtp", "num_speculative_tokens": 1}
    assert "--speculative-draft-model-path" not in (sglang_flags(Mtp(), 1, DEEPSEEK) or [])


@pytest.mark.parametrize("length", [Fixed(drafts=5), TABLE], ids=["fixed", "table"])
def test_the_exported_json_loads_back_as_the_same_policy(length):
    config = vllm_config(Eagle(vocab=32000), length, QWEN)
    assert length_of(json.loads(json.dumps(config))) == length
    assert config["num_speculative_tokens"] == length.most_drafts


def test_the_command_survives_a_shell():
    config = vllm_config(Eagle(vocab=32000), TABLE, QWEN)
    command = vllm_command(config, QWEN)
    assert command.startswith("vllm serve Qwen/Qwen3-8B --speculative-config '{")
    assert json.loads(command.split("'")[1]) == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "num_speculative_tokens must be a whole number >= 1, got None"),
        ({"num_speculative_tokens": 2, "num_speculative_tokens_per_batch_size": [[1, 4, 3]]}, "not ask for more than"),
        ({"num_speculative_tokens": 2, "num_speculative_tokens_per_batch_size": [[2, 4, 1]]}, "must start at batch 1"),
    ],
)
def test_a_config_that_vllm_would_not_take_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        length_of(config)


def test_sglang_counts_the_last_committed_token():
    flags = sglang_flags(Eagle(vocab=32000), 3, QWEN)
    assert flags == [
        "--speculative-algorithm", "EAGLE3", "--speculative-draft-model-path", "PATH_OF_EAGLE3_HEAD_FOR_QWEN3_8B",
        "--speculative-num-steps", "3", "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", "4",
    ]  # fmt: skip
    tree = sglang_flags(Eagle(version=1, top_k=8, nodes=31), 5, QWEN)
    assert tree[-6:] == [
        "--speculative-num-steps", "5", "--speculative-eagle-topk", "8", "--speculative-num-draft-tokens", "32",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("drafter", "algorithm"), [(DraftModel(), "STANDALONE"), (NGram(match_rate=0.3), "NGRAM"), (DFLASH, "DFLASH")]
)
def test_sglang_algorithms(drafter, algorithm):
    assert sglang_flags(drafter, 3, QWEN)[1] == algorithm


def test_what_an_engine_lacks_is_not_exported():
    assert vllm_config(Eagle(version=1, top_k=8, nodes=31), Fixed(drafts=5), QWEN) is None
    assert sglang_flags(Medusa(), 3, QWEN) is None
    assert sglang_flags(P_EAGLE, 3, QWEN) is None


def test_a_model_without_a_repository_leaves_a_path_to_fill_in():
    model = load_model("qwen3_8b", "model")
    assert repository(model) == "Qwen/Qwen3-8B"
    from dataclasses import replace

    assert repository(replace(model, source="", name="Mine 2")) == "PATH_OF_MINE_2"
