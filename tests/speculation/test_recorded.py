"""Replay: what was recorded comes back, under every draft length, or the run is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sim.draws import derive, key
from sim.request import Requests
from sim.speculation.acceptance import Recorded

DATA = Path(__file__).parent / "data"
DEPTHS = [[3, 2, 0, 3, 1, 0, 4], [0, 1, 0, 0, 2], [1, 1]]


def stream(*outputs, dropped=()):
    n = len(outputs)
    return Requests(
        arrival_s=np.zeros(n), prompt_tokens=np.full(n, 10), output_tokens=np.array(outputs, dtype=np.int64),
        group=np.zeros(n, dtype=np.int32), dropped=dropped,
    )  # fmt: skip


@pytest.fixture(params=["recorded.jsonl", "recorded.csv"])
def policy(request):
    return Recorded(path=str(DATA / request.param))


def test_both_formats_replay_the_recording(policy):
    ids = np.repeat([0, 1, 2], [7, 5, 2])
    positions = np.concatenate([np.arange(7), np.arange(5), np.arange(2)])
    keys = derive(key(0, "acceptance"), ids)
    recorded = np.concatenate(DEPTHS)
    for drafts in (1, 2, 3, 8):
        depths = policy.depths(keys, positions, drafts, stream(7, 5, 2), ids)
        assert (depths == np.minimum(recorded, drafts)).all()
        assert policy.survival(drafts).sum() == pytest.approx(np.minimum(recorded, drafts).mean())


def test_rounds_walk_through_the_recording(policy):
    """With 2 drafts: request 0 starts rounds at 1, 4 and 6, request 1 at 1, 3 and 4, request 2 at 1."""
    assert policy.mean_accepted(2) == pytest.approx(((2 + 1 + 2) + (1 + 0 + 2) + 1) / 7)


def test_a_recording_shorter_than_the_output_is_refused(policy):
    policy.check(stream(7, 5, 2))
    policy.check(stream(6, 2))
    with pytest.raises(ValueError, match=r"recording of request 1 must be as long as its output of 9 tokens, got 5"):
        policy.check(stream(7, 9, 2))
    with pytest.raises(ValueError, match=r"must hold every request of the workload, 4, got 3"):
        policy.check(stream(1, 1, 1, 1))
    with pytest.raises(ValueError, match="were dropped"):
        policy.check(stream(7, 5, dropped=(("too long", 1),)))


def test_a_stream_beyond_the_recording_is_refused_where_it_is_asked(policy):
    keys = derive(key(0, "acceptance"), np.array([1, 9]))
    with pytest.raises(ValueError, match="the recording of request 1 must be as long as its output, got 5 depths"):
        policy.depths(keys[:1], np.array([5]), 2, None, np.array([1]))
    with pytest.raises(ValueError, match="must hold every request of the workload, got 3"):
        policy.depths(keys[1:], np.array([1]), 2, None, np.array([9]))
    with pytest.raises(ValueError, match="need the rows of the requests"):
        policy.depths(keys, np.array([1, 1]), 2)


def test_no_deeper_than_it_was_recorded():
    policy = Recorded(path=str(DATA / "recorded.jsonl"), recorded_drafts=4)
    assert policy.mean_accepted(4) > 0
    with pytest.raises(ValueError, match="recorded with 4 drafts per round and knows nothing deeper, got 5"):
        policy.survival(5)
    with pytest.raises(ValueError, match=r"recorded_drafts must be >= the deepest depth of .*, 4, got 3"):
        Recorded(path=str(DATA / "recorded.jsonl"), recorded_drafts=3).survival(2)


def test_gzip_is_read_as_well(tmp_path):
    packed = tmp_path / "recorded.jsonl.gz"
    packed.write_bytes(gzip.compress((DATA / "recorded.jsonl").read_bytes()))
    assert Recorded(path=str(packed)).mean_accepted(3) == Recorded(path=str(DATA / "recorded.csv")).mean_accepted(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"request": 0, "depths": [1, -2]}', r":1: depths must be a whole number"),
        ('{"request": 0, "depths": []}', r":1: depths must be a list of at least one depth"),
        ('{"request": 0, "depths": [1]}\nnonsense', r":2: must be a JSON object"),
        ('{"request": 0, "depths": [1]}\n{"request": 2, "depths": [1]}', "request 1 must have one depth at each"),
        ('{"request": 0, "depths": [1]}\n{"request": 0, "depths": [1]}', "request 0 must have one depth at each"),
        ("request,position\n0,0", "missing column depth"),
        ("request,position,depth\n0,0,1\n0,2,1", "request 0 must have one depth at each"),
        ("request,position,depth\n0,0", ":2: must have 3 fields"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, text, message):
    path = tmp_path / "recorded"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recorded(path=str(path)).survival(1)


def test_the_file_must_be_there(tmp_path):
    with pytest.raises(ValueError, match=r"speculation\.acceptance\.path must be a readable file"):
        Recorded(path=str(tmp_path / "none.jsonl")).survival(1)
    with pytest.raises(ValueError, match="recorded_drafts must be >= 0"):
        Recorded(path="x", recorded_drafts=-1)
