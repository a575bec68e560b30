"""Arguments that do not fit are named, with what was found and what is allowed, before anything."""

from __future__ import annotations

import pytest

import latentmas as lm
from latentmas.backbones import read_info
from latentmas.evaluation import evaluate
from latentmas.evaluation.intervals import wilson
from latentmas.prompts.packs import read_prompt_pack
from latentmas.training.data import read_rows
from tests.teams import sequential, tiny

BACKBONE = tiny("llama", 16)
INFO = read_info(BACKBONE)


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(latent_steps=2).compile().load()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("position_mode", "colum", "did you mean 'column'? known: mask, column"),
        ("position_mode", None, "known: mask, column"),
        ("max_new_tokens", "8", "'8'; give a whole number of at least 1"),
        ("max_new_tokens", 1.5, "1.5; give a whole number"),
        ("max_new_tokens", True, "True; give a whole number"),
        ("batch_size", "a", "'a'; give a whole number"),
        ("num_return_sequences", "x", "'x'; give a whole number"),
        ("top_k", 1.5, "1.5; give a whole number"),
        ("temperature", "x", "'x'; give a number above 0"),
        ("temperature", float("nan"), "nan; give a number above 0"),
        ("min_p", "x", "'x'; give a number from 0 to 1"),
        ("refill_threshold", "x", "'x'; give a number above 0 and at most 1"),
        ("do_sample", "yes", "'yes'; give True or False"),
        ("seed", None, "None; give a whole number, or a sequence"),
        ("seed", ["x"], "seed[0] is 'x'"),
        ("stop", 3, "3; give a string, or a sequence of strings"),
        ("stop", ["a", 3], "stop[1] is 3; give a string"),
        ("stop", "\ud800", "half of a surrogate pair"),
        ("retry", 3, "unknown retry '3'; known: math, choice, code, search"),
        ("record", 3, "3; give a string"),
        ("executor", 3, "3; give a name, or None"),
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
    from latentmas.engine.executors import executors

    with pytest.raises(lm.UnknownNameError, match="known: mask, column"):
        executors.get("reference")("colum")


def test_record_takes_one_name(team):
    assert team.run(["x"], record="messages", max_new_tokens=1).messages


@pytest.mark.parametrize("sample", ["\ud800", {"question": ["fine", {"a": "\udfff"}]}])
def test_text_that_is_not_unicode(team, sample):
    with pytest.raises(lm.DataError, match=r"sample 1, field 'question': .* not Unicode"):
        team.run(["x", sample])


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (lambda team: team.plan.link("planner->critc"), "unknown link 'planner->critc'; did you"),
        (lambda team: team.link("foo"), "unknown link 'foo'; known: "),
        (lambda team: team.backbone_of("plannr"), "unknown agent 'plannr'; did you mean 'planner'"),
        (lambda team: team.plan.graph.agent("foo"), "known: planner, critic, solver"),
        (lambda team: team.plan.load(dtype="bf"), "unknown dtype 'bf'; known: auto, float64"),
        (lambda team: team.plan.load(dtype="flaot32"), "did you mean 'float32'"),
    ],
)
def test_names_that_do_not_exist(team, find, words):
    with pytest.raises(lm.UnknownNameError) as caught:
        find(team)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda team: lm.Plan.load("plan.json"), ["Plan.open(path)", "'plan.json'"]),
        (lambda team: lm.System.load(sequential()), ["Graph", "graph.compile()"]),
        (lambda team: lm.System.load(team.plan, reuse=3), ["reuse", "int", "plan.load()"]),
        (
            lambda team: evaluate(team, [], compare_with={"other": 3}),
            ["other", "int", "plan.load()"],
        ),
        (lambda team: lm.templates.mixture(experts=[BACKBONE]), ["experts", "list", "mapping"]),
        (
            lambda team: lm.Graph().add_agent("a", None, prompt=""),
            ["agent 'a'", "None", "Backbone"],
        ),
        (lambda team: lm.Graph(backbones={"x": "foo"}), ["backbones['x']", "'foo'", "Backbone"]),
        (
            lambda team: lm.Graph().add_agent("a", BACKBONE, prompt="", tools=[3]),
            ["agent 'a'", "3 in tools", "function"],
        ),
        (lambda team: lm.System.load(team.plan, tools=3), ["tools are a mapping", "int"]),
    ],
)
def test_things_of_the_wrong_kind(team, make, words):
    with pytest.raises(TypeError) as caught:
        make(team)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": {"nope": print}}, "tool 'nope' is given, but no agent has it; known: none"),
        ({"text_functions": {"nope": print}}, "'nope' is given, but no text source takes it"),
        ({"device": "meta"}, "device 'meta' keeps no values; use device='cpu'"),
        ({"seed": "x"}, "seed is 'x'; give a whole number"),
    ],
)
def test_loading_refuses_what_fits_nothing(team, options, words):
    with pytest.raises(lm.LatentMASError) as caught:
        team.plan.load(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"nosuch": "x"}, ["LM201", "'nosuch'", "not a BackboneInfo"]),
        ({"nosuch": INFO}, ["LM101", "'nosuch'", "known: "]),
        ({BACKBONE.source + "x": INFO}, ["LM101", f"did you mean {BACKBONE.source!r}"]),
    ],
)
def test_facts_that_fit_nothing(facts, words):
    graph = lm.Graph("t", inputs=["question"], rounds=1, latent_steps=1)
    graph.add_agent("a", BACKBONE, prompt="{{ question }}")
    with pytest.raises(lm.GraphError) as caught:
        graph.output("a").compile(facts=facts)
    assert len(caught.value.problems) == 1
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_backbone_is_told_how_to_declare_it_in_python():
    graph = lm.templates.sequential(planner="foo/bar", critic=BACKBONE, solver=BACKBONE)
    with pytest.raises(lm.GraphError, match=r'give lm\.Backbone\("foo/bar"\) in place'):
        graph.compile()


def test_a_graph_file_has_a_suffix_that_can_be_read_again(tmp_path):
    with pytest.raises(lm.DataError, match=r"a\.txt.*\.yaml, \.yml or \.json"):
        sequential().save(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "read"),
    [("a.yaml", lm.Graph.load), ("a.json", lm.Graph.load), ("p.yaml", read_prompt_pack)],
)
def test_files_that_are_not_utf_8(tmp_path, name, read):
    (tmp_path / name).write_bytes(b'# one\n"name": "caf\xe9"\n')
    with pytest.raises(lm.LatentMASError) as caught:
        read(tmp_path / name)
    assert "not UTF-8 text: byte 0xe9 on line 2" in str(caught.value)
    assert "save it as UTF-8" in str(caught.value)
    assert "syntax" not in str(caught.value)


def test_training_rows_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "x"}\n', encoding="utf-8-sig")
    assert read_rows(path).plain() == [{"question": "x"}]


def test_functions_of_parts_that_were_taken_out_are_left_out():
    graph = sequential()
    graph.text_functions["gone"] = graph.tools["gone"] = str
    assert graph.compile().load().tools == {}


def failing(*_: object) -> str:
    return str(1 / 0)


def test_a_failing_text_source_says_where():
    graph = lm.Graph("t", inputs=["question"], rounds=1, latent_steps=1)
    graph.add_agent("a", BACKBONE, prompt="{{ question }}")
    graph.add_agent("b", BACKBONE, prompt="{{ a }} {{ facts }}")
    graph.add_text_source("facts", failing)
    graph.connect("a", "b")
    graph.connect("facts", "b", link="text")
    system = graph.output("b").compile().load()
    with pytest.raises(lm.ExecutionError, match="text source 'facts', sample 0: Zero") as caught:
        system.run(["x"])
    assert (caught.value.agent, caught.value.round) == ("b", 1)


def test_a_failing_listener_says_where(team):
    with pytest.raises(lm.LatentMASError, match="on_text, sample 0: ZeroDivisionError"):
        team.run(["x"], on_text=failing, max_new_tokens=3)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda name, message: None, "made NoneType of a message of shape"),
        (lambda name, message: message[:, :, :3], "rows and width must stay"),
        (failing, "division by zero"),
    ],
)
def test_an_edit_that_fails_says_where(team, edit, words):
    with pytest.raises(lm.ExecutionError, match=words) as caught:
        team.run(["x"], edit_message=edit)
    assert (caught.value.agent, caught.value.round) == ("planner", 1)


def test_a_folder_that_cannot_be_written_is_named(team, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="the team cannot be written") as caught:
        team.save_pretrained(tmp_path / "file" / "team")
    assert caught.value.filename == str(tmp_path / "file" / "team")


def test_a_system_shows_the_team(team):
    shown = repr(team).splitlines()
    assert shown[0].startswith("System 'sequential': 3 agents, 3 rounds, 6 links of ")
    assert [line.split()[0] for line in shown[1:]] == ["planner", "critic", "solver"]
    assert shown[3].endswith("2 latent steps, answers")


def test_a_graph_has_a_name():
    assert sequential().name == "sequential"


def test_the_interval_of_none_and_of_all_ends_exactly():
    for n in range(1, 50):
        assert wilson(0.0, n)[0] == 0.0
        assert wilson(1.0, n)[1] == 1.0
