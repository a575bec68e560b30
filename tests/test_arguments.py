"""Arguments that do not fit are named, with what was found and what is allowed, before anything."""

from __future__ import annotations

import pytest

import latentmas as lm
from tests.teams import sequential


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(latent_steps=2).compile().load()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("position_mode", "colum", "did you mean 'column'? known: mask, column"),
        ("position_mode", None, "known: mask, column"),
        ("max_new_tokens", "8", "'8'; give a whole number of at least 1"),
        ("max_new_tokens", None, "None; give a whole number"),
        ("max_new_tokens", 1.5, "1.5; give a whole number"),
        ("max_new_tokens", True, "True; give a whole number"),
        ("batch_size", "a", "'a'; give a whole number"),
        ("num_return_sequences", "x", "'x'; give a whole number"),
        ("top_k", 1.5, "1.5; give a whole number"),
        ("temperature", "x", "'x'; give a number above 0"),
        ("temperature", float("nan"), "nan; give a number above 0"),
        ("min_p", "x", "'x'; give a number from 0 to 1"),
        ("refill", "x", "'x'; give a number above 0 and at most 1"),
        ("do_sample", "yes", "'yes'; give True or False"),
        ("seed", None, "None; give a whole number, or a sequence"),
        ("seed", ["x"], "seed[0] is 'x'"),
        ("stop", 3, "3; give a string, or a sequence of strings"),
        ("stop", ["a", 3], "3 in it is no string"),
        ("stop", "\ud800", "not Unicode"),
        ("retry", 3, "3; give the name of a task"),
        ("record", 3, "3; give a string"),
        ("executor", 3, "unknown executor '3'"),
        ("on_event", 3, "3; give a function"),
        ("on_text", 3, "3; give a function"),
        ("edit_message", 3, "3; give a function"),
        ("manifest", 3, "3; give a path"),
    ],
)
def test_run_options_of_the_wrong_type(team, option, value, words):
    with pytest.raises(lm.LatentMASError) as caught:
        team.run(["x"], **{option: value})
    assert option in str(caught.value)
    assert words in str(caught.value)


def test_an_executor_refuses_an_unknown_position_mode():
    from latentmas.runtime.executors import executors

    with pytest.raises(lm.UnknownNameError, match="known: mask, column"):
        executors.get("reference")("colum")


def test_record_takes_one_name(team):
    assert team.run(["x"], record="messages", max_new_tokens=1).messages


@pytest.mark.parametrize("sample", ["\ud800", {"question": ["fine", {"a": "\udfff"}]}])
def test_text_that_is_not_unicode(team, sample):
    with pytest.raises(lm.DataError, match=r"sample 1, field 'question': .* not Unicode"):
        team.run(["x", sample])
