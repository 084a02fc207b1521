"""The words of `moesd-sim advise`."""

from __future__ import annotations

import pytest

from sim.advise.arguments import parse


def test_words_are_told_from_overrides():
    found = parse(["drafters=[eagle3,ngram]", "most=4", "model=qwen3_8b", "hydra.run.dir=here", "~speculation"])
    assert found.drafters == ("eagle3", "ngram")
    assert found.most == 4
    assert found.out == "here"
    assert found.overrides == ("model=qwen3_8b", "~speculation")


def test_a_drafter_has_fields_of_its_own():
    found = parse(["drafters=eagle3,ngram", "ngram.drafter.match_rate=0.5", "eagle3/acceptance=beta", "seed=1"])
    assert found.overrides_of("ngram") == ["speculation=ngram", "seed=1", "speculation.drafter.match_rate=0.5"]
    assert found.overrides_of("eagle3") == ["speculation=eagle3", "seed=1", "speculation/acceptance=beta"]
    assert found.acceptance_given("eagle3")
    assert not found.acceptance_given("ngram")


def test_the_configurations_own_drafter_keeps_its_name():
    assert parse(["speculation=mtp"]).chosen_drafter == "mtp"
    assert parse([]).chosen_drafter == ""
    assert parse(["speculation.acceptance.rate=0.7"]).acceptance_given("")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drafters=eagle3,eagle3"], "drafters must differ, got eagle3, eagle3"),
        (["drafters=off"], "drafters must be options of the group speculation other than off, got 'off'"),
        (["drafters=a", "speculation=b"], "speculation= has no effect beside drafters="),
        (["acceptance=0.7"], "acceptance must be one of given, preset, unknown, got '0.7'"),
        (["most=0"], r"most must lie in \[1, 16\], got '0'"),
        (["most=many"], r"most must lie in \[1, 16\], got 'many'"),
        (["fit=1"], "fit has no effect without run="),
        (["run=a", "fit=0"], "fit must be >= 1, got '0'"),
        (["run="], "run= must have a value"),
        (["out=a", "out=b"], "out= must be given once"),
        (["qwen3_8b"], "arguments must be drafters=, .* got 'qwen3_8b'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)
