"""A link kind of the user's own: from a file, and from another distribution's entry point."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import latentmas as lm
from latentmas.links import Link, LinkOptions, link_kinds
from tests.teams import QUESTIONS, tiny

ROWS = [{"question": q, "answer": a} for q, a in (("1 + 1", "2"), ("2 + 1", "3"), ("5", "five"))]

KIND = '''
"""A kind from another distribution."""
import torch
from torch import nn
import latentmas as lm
from latentmas.links import LinkOptions


class Options(LinkOptions):
    """Options of the kind."""
    rank: int = 4


class LowRank(lm.Link):
    """Linear(S, rank) → Linear(rank, D).

    Reference: a test.

    Inputs: h_BKS.

    Relations: `linear` of low rank.

    Example: `graph.connect("a", "b", link="low_rank_test", rank=2)`
    """

    Options = Options

    def __init__(self, options, in_dim, out_dim):
        super().__init__(options, in_dim, out_dim)
        self.down = nn.Linear(in_dim, options.rank, bias=False)
        self.up = nn.Linear(options.rank, out_dim)

    def forward(self, h_BKS):
        return self.up(self.down(h_BKS))
'''


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(link_kinds, "_entries", dict(link_kinds._entries))


@pytest.fixture
def gated() -> type[Link]:
    class Options(LinkOptions):
        gate: float = 0.5

    @lm.link_kinds.register("gated_test")
    class Gated(Link):
        """A linear map times a learned gate."""

        def __init__(self, options, in_dim, out_dim):
            super().__init__(options, in_dim, out_dim)
            self.map = nn.Linear(in_dim, out_dim)
            self.gate = nn.Parameter(torch.full((out_dim,), options.gate))

        def forward(self, h_BKS):
            return self.map(h_BKS) * self.gate.sigmoid()

        def scale_output(self, factor):
            with torch.no_grad():
                self.map.weight.mul_(factor)
                self.map.bias.mul_(factor)
            return True

    Gated.Options = Options
    return Gated


@pytest.fixture
def distribution(tmp_path, monkeypatch) -> Path:
    """An installed distribution with one module and one entry point."""
    site = tmp_path / "site"
    info = site / "low_rank_dist-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "low_rank_module_of_a_test.py").write_text(KIND, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: low-rank-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[latentmas.links]\n"
        "low_rank_test = low_rank_module_of_a_test:LowRank\n"
        "broken_test = no_such_module_of_a_test:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield site
    sys.modules.pop("low_rank_module_of_a_test", None)


def team(kind: str, **options: object) -> lm.Graph:
    small, wide = tiny("llama", 16), tiny("llama", 32, seed=1)
    graph = lm.Graph("own", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent(
        "one", small, prompt="{% if back %}{{ back }}{% endif %}{{ question }}", inner=kind
    )
    graph.add_agent("two", wide, prompt="{{ one }} {{ question }}", inner={"kind": kind})
    graph.connect("one", "two", link=kind, **options)
    graph.feedback("two", "one.back", link=kind, **options)
    return graph.output("two")


def live(graph: lm.Graph, folder: Path) -> lm.System:
    """Compile, run, train two steps, save and load; returns what was loaded."""
    plan = graph.compile()
    assert lm.Plan.from_json(plan.to_json()) == plan
    system = plan.load()
    assert len(system.run(QUESTIONS, max_new_tokens=4).texts) == 3
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    config = lm.OuterConfig(
        output_dir=str(folder / "out"),
        max_steps=2,
        learning_rate=0.05,
        warmup_steps=0,
        train_links="all",
        per_device_train_batch_size=3,
        use_cpu=True,
    )
    lm.OuterTrainer(system, config, train_dataset=ROWS).train()
    after = system.link_state()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    again = lm.System.from_pretrained(system.save_pretrained(folder / "team"))
    assert again.plan == system.plan
    assert all(torch.equal(again.link_state()[name], after[name]) for name in after)
    options = {"max_new_tokens": 6, "record": ("messages",)}
    a, b = system.run(QUESTIONS, **options), again.run(QUESTIONS, **options)
    assert a.token_ids == b.token_ids
    assert all(torch.equal(a.messages[name], b.messages[name]) for name in a.messages)
    return again


def test_a_kind_from_the_users_own_file(gated, tmp_path):
    assert "gated_test" in link_kinds.names() and "gated_test" in link_kinds
    system = live(team("gated_test", gate=-1.0), tmp_path)
    link = system.link("outer.one->two.one")
    assert type(link) is gated
    assert link.options.gate == -1.0
    assert system.plan.link("outer.one->two.one").options == {"gate": -1.0}
    assert system.plan.link("outer.one->two.one").norm == "embedding"
    assert system.plan.link("outer.one->two.one").n_parameters == 16 * 32 + 32 + 32


def test_a_kind_from_another_distribution(distribution, tmp_path):
    assert "low_rank_test" in link_kinds.names()
    assert "low_rank_module_of_a_test" not in sys.modules, "listing names imports nothing"
    system = live(team("low_rank_test", rank=2), tmp_path)
    link = system.link("outer.one->two.one")
    assert type(link).__module__ == "low_rank_module_of_a_test"
    assert system.plan.link("outer.one->two.one").n_parameters == 16 * 2 + 2 * 32 + 32
    assert system.plan.link("outer.one->two.one").norm == "none", "it cannot scale its output"


def test_an_entry_point_that_does_not_import_harms_only_who_asks_for_it(distribution):
    team("recursive").compile()
    with pytest.raises(ImportError, match="no_such_module_of_a_test"):
        link_kinds.get("broken_test")


def test_a_team_whose_kind_is_not_installed_says_so(gated, tmp_path, monkeypatch):
    folder = team("gated_test").compile().load().save_pretrained(tmp_path / "team")
    link_kinds._entries.pop("gated_test")
    with pytest.raises(lm.WeightsError, match="unknown link kind 'gated_test'"):
        lm.System.from_pretrained(folder)


def test_options_of_an_own_kind_are_checked(gated):
    with pytest.raises(lm.GraphError, match="LM121") as caught:
        team("gated_test", gaet=1.0).compile()
    assert "gate" in caught.value.problems[0].hint
    with pytest.raises(lm.GraphError, match="LM121"):
        team("gated_test", gate="wide").compile()
    with pytest.raises(lm.GraphError, match="no initialisation 'ridge'"):
        team("gated_test", init="ridge").compile()


def test_a_misspelt_kind_is_suggested(gated):
    with pytest.raises(lm.GraphError, match="did you mean 'gated_test'"):
        team("gatd_test").compile()


def test_a_name_is_taken_once_and_running_a_cell_again_replaces_it(gated):
    with pytest.raises(lm.LatentMASError, match="registered twice"):

        @lm.link_kinds.register("gated_test")
        class Other(Link):
            """Something else."""

    assert link_kinds.get("gated_test") is gated
    again = type(
        "Gated", (gated,), {"__module__": gated.__module__, "__qualname__": gated.__qualname__}
    )
    assert link_kinds.register("gated_test")(again) is again
    assert link_kinds.get("gated_test") is again


@pytest.mark.parametrize("name", ["not a name", "2fast", "a-b", "a.b", ""])
def test_a_name_must_be_an_identifier(name):
    with pytest.raises(lm.LatentMASError, match="identifier"):
        lm.link_kinds.register(name)


def test_a_built_in_kind_cannot_be_replaced_by_accident():
    """Whether its file has been imported yet or not."""
    for loaded in (dict(link_kinds._entries), {}):
        link_kinds._entries = loaded
        with pytest.raises(lm.LatentMASError, match="recursive"):

            @lm.link_kinds.register("recursive")
            class Mine(Link):
                """Not the method's link."""
