"""Everything shown is run, every code and public name has its place, links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import latentmas as lm
from latentmas import evaluation, serve, studies
from latentmas.backbones import families
from latentmas.backbones.auto import Auto
from latentmas.backbones.loading import libraries as _libraries
from latentmas.cli.app import app
from latentmas.compiler import compile_graph
from latentmas.errors import CODES, GraphError, LatentMASError
from latentmas.io import push_folder
from latentmas.studies import paper
from latentmas.studies.analyses import analyses
from latentmas.studies.baselines import baselines
from latentmas.testing import tiny_backbone
from latentmas.training.loops import loops
from latentmas.training.select import check_reach, choose_links

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MARKDOWN = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
# A block that needs a download says "```python no-run" and is left out. What it prints stands in
# its comments, or in a block "```text" right below it.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
# `ruff format` writes "#> 1" as "# > 1".
OUTPUT = re.compile(r"^\s*# ?> (.*)$", re.MULTILINE)
SECTION = re.compile(r"^## (LM\d+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(autouse=True)
def _own_registry():
    """What pages register is gone after the test."""
    registries = (
        lm.link_kinds,
        families,
        evaluation.graders,
        evaluation.benchmarks,
        loops,
        baselines,
        analyses,
    )
    before = [set(registry.names()) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry.names()) - names:
            del registry._entries[name]


def blocks(path: Path) -> list[tuple[str, str]]:
    """Code, and what the text block below it shows."""
    return BLOCK.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p)], ids=of)
def test_python_blocks_run_and_print_what_they_say(path: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "__docs__"}
    for block, text in blocks(path):
        expected = [*OUTPUT.findall(block), *text.splitlines()]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(path), "exec"), scope)
        if path.parent != ROOT or expected:  # only the README may leave out what it prints
            assert printed.getvalue().splitlines() == expected
    for drawn in tmp_path.glob("*.svg"):  # `make docs-update` makes them anew
        shown = DOCS / "pictures" / drawn.name
        if f"](pictures/{drawn.name})" not in path.read_text(encoding="utf-8"):
            continue
        assert drawn.read_text() == shown.read_text(), f"{shown} is not what the page draws"


def test_the_drawing_of_the_first_page_is_current():
    assert (DOCS / "team.svg").read_text() == lm.templates.sequential_light().compile().svg()


def test_output_that_is_shown_is_found():
    """Guards the test above: a form of comment that it does not read would compare nothing."""
    assert OUTPUT.findall("x\n#> 1\n    # > ['LM110']\n") == ["1", "['LM110']"]
    for path in PAGES:
        code = [block for block, _ in blocks(path)]
        comments = [line.split("#", 1)[1] for b in code for line in b.splitlines() if "#" in line]
        shown = [text for text in comments if text.lstrip().startswith(">")]
        assert sum(len(OUTPUT.findall(block)) for block in code) == len(shown), path
        fences = re.findall(r"^```python$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(code) == len(fences), path


# ── the command line ──────────────────────────────────────────────────────────────────────────


def shown_commands(path: Path) -> Iterator[list[str]]:
    """Words after `latentmas` in fenced blocks and inline code."""
    text = path.read_text(encoding="utf-8")
    for line in re.findall(
        r"^latentmas (.*?)(?:\s{2,}#.*)?$|`latentmas (.*?)`", text, re.MULTILINE
    ):
        words = shlex.split("".join(line).split(" …")[0], comments=True)
        if words and words[0] != "COMMAND":
            yield words


def resolve(words: list[str]) -> click.Command:
    """The command that these words call, options before it skipped."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if hasattr(command, "commands"):
            found = command.get_command(None, word)
            if found is None and words[0] == "train":
                found = command.get_command(None, "TEAM")
            if found is not None:
                command = found
            elif words.index(word) == 0 and not word.startswith("-"):
                raise AssertionError(f"there is no command `latentmas {word}`")
    return command


@pytest.mark.parametrize("path", PAGES, ids=of)
def test_commands_and_options_that_are_shown_exist(path: Path):
    top = {name for p in typer.main.get_command(app).params for name in p.opts}
    for words in shown_commands(path):
        known = {name for p in resolve(words).params for name in p.opts} | {"--help"} | top
        for word in words:
            assert not word.startswith("-") or word in known, f"latentmas {' '.join(words)}"


def test_every_command_is_on_its_page():
    page = (DOCS / "cli.md").read_text()
    command: Any = typer.main.get_command(app)
    for name, sub in command.commands.items():
        below = sub.list_commands(None) if hasattr(sub, "commands") else ()
        for full in [f"{name} {part}" for part in below] or [name]:
            assert f"`latentmas {full}" in page, full


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "how-to/own-data.md"], ids=of)
def test_commands_in_fences_run_one_after_another(path: Path, tmp_path, monkeypatch):
    """As shown, but on a tiny model, for a few steps."""
    monkeypatch.chdir(tmp_path)
    tiny_backbone("qwen3", 16, folder="tiny")
    row = '{"question": "What is 2 + 2?", "answer": "4", "plan": "add"}\n'
    for name in ("rows.jsonl", "questions.jsonl"):
        Path(name).write_text(row * 2)
    lines = re.findall(r"^latentmas (.*?)(?:\s{2,}#.*)?$", path.read_text(), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = [w for w in shlex.split(line) if w != "--backbone" and "/Qwen" not in f"/{w}"]
        brief = ["--max-new-tokens", "2"]
        words += {"new": ["--backbone", "./tiny"], "run": brief, "eval": brief}.get(words[0], [])
        words += ["--steps", "2"] if words[0] == "train" else []
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"latentmas {line}\n{done.output}\n{done.exception}"
        shrink(tmp_path)


def shrink(folder: Path) -> None:
    """32 latent steps are many for a test."""
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace("latent_steps: 32", "latent_steps: 2"))


@pytest.mark.parametrize("name", ["cli_reference", "llms"])
def test_made_pages_are_current(name: str):
    """`make docs-update` makes them anew."""
    maker = runpy.run_path(str(ROOT / f"tests/golden/{name}.py"))
    assert maker["PAGE"].read_text(encoding="utf-8") == maker["render"]()


def test_the_schema_of_the_docs_is_current():
    """`make docs-update` makes it anew."""
    assert json.loads((DOCS / "graph.schema.json").read_text()) == lm.GraphSpec.json_schema()


# ── the codes ─────────────────────────────────────────────────────────────────────────────────


def sound() -> dict[str, Any]:
    """A graph that compiles; widths 64 and 48."""
    prompt = "{% if feedback %}{{ feedback }}{% endif %}{{ question }}"
    return {
        "name": "pair",
        "inputs": ["question"],
        "rounds": 2,
        "latent_steps": 4,
        "backbones": {"wide": {"source": "org/wide"}, "narrow": {"source": "org/narrow"}},
        "agents": [
            {"name": "planner", "backbone": "wide", "prompt": prompt},
            {"name": "solver", "backbone": "narrow", "prompt": "{{ plan }} {{ question }}"},
        ],
        "edges": [
            {"source": "planner", "target": "solver", "slot": "plan"},
            {"source": "solver", "target": "planner", "slot": "feedback", "delay": 1},
        ],
        "output": "solver",
    }


def agent(name: str, prompt: str = "{{ question }}", backbone: str = "wide") -> dict[str, Any]:
    return {"name": name, "backbone": backbone, "prompt": prompt}


def edge(source: str, target: str, slot: str | None = None, **more: Any) -> dict[str, Any]:
    return {"source": source, "target": target, **({"slot": slot} if slot else {}), **more}


def put(g: dict[str, Any], *path: Any, to: Any) -> None:
    for key in path[:-1]:
        g = g[key]
    g[path[-1]] = to


GUARDED = "{% if feedback %}{{ feedback }}{% endif %}{{ question }}"
HINTS = {"kind": "recursive", "share": "one"}
# One change of `sound` for each code that compiling raises.
MISTAKES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "LM100": lambda g: g.update(runds=2),
    "LM101": lambda g: put(g, "agents", 0, "backbone", to="wdie"),
    "LM102": lambda g: put(g, "inputs", to=["question", "planner"]),
    "LM103": lambda g: put(g, "agents", 0, "prompt", to=GUARDED + "{{ qestion }}"),
    "LM104": lambda g: g["edges"].append(edge("planner", "solver", "plan")),
    "LM105": lambda g: put(g, "edges", 0, "slot", to="plna"),
    "LM106": lambda g: g["edges"].append(edge("planner", "solver")),
    "LM107": lambda g: put(g, "edges", 0, "source", to="plannr"),
    "LM108": lambda g: put(g, "inputs", to=["question", "loop"]),
    "LM110": lambda g: put(g, "edges", 1, "delay", to=0),
    "LM111": lambda g: g.pop("output"),
    "LM112": lambda g: (
        g["agents"].append(agent("checker", "{{ solver }} {{ question }}")),
        g["edges"].append(edge("solver", "checker", "solver")),
    ),
    "LM113": lambda g: g.update(latent_steps=0),
    "LM114": lambda g: g.update(rounds=1),
    "LM115": lambda g: put(g, "inputs", to=["question", "hint"]),
    "LM116": lambda g: g.update(agents=[], edges=[]),
    "LM117": lambda g: g["agents"].append(agent("poet")),
    "LM118": lambda g: g["agents"][1].update(tools=["result"]),
    "LM119": lambda g: g["agents"][1].update(tools=["pyhton"]),
    "LM120": lambda g: put(g, "edges", 0, "link", to={"kind": "identity"}),
    "LM121": lambda g: put(g, "edges", 0, "link", to={"kind": "recursiv"}),
    "LM122": lambda g: [put(e, "link", to=HINTS) for e in g["edges"]],
    "LM123": lambda g: (
        g.update(text_sources=[{"name": "notes", "text": "Be brief."}]),
        put(g, "edges", 1, "source", to="notes"),
    ),
    "LM201": lambda g: put(g, "backbones", "wide", "source", to="./missing"),
    "LM202": lambda g: put(g, "backbones", "wide", "source", to="./t5"),
    "LM203": lambda g: put(g, "backbones", "spare", to={"source": "org/spare"}),
    "LM204": lambda g: put(g, "backbones", "wide", "load", to={"torch_dtype": "bfloat16"}),
    "LM205": lambda g: put(g, "backbones", "wide", "chat_template", to="{% if %}"),
    "LM207": lambda g: put(g, "backbones", "wide", "source", to="given:mine"),
    "LM208": lambda g: put(g, "backbones", "wide", "adapter", to="./nowhere"),
    "LM301": lambda g: put(g, "agents", 1, "prompt", to="{{ plan }} {{ question"),
    "LM302": lambda g: put(g, "agents", 0, "prompt", to="{{ feedback }} {{ question }}"),
    "LM303": lambda g: put(g, "agents", 1, "prompt", to="{{ plan | upper }} {{ question }}"),
}


def compiled(change: Callable[[dict[str, Any]], Any]) -> lm.Plan:
    data = sound()
    change(data)
    facts = {
        f"org/{name}": lm.BackboneInfo(
            model_type="llama", hidden_size=width, vocab_size=64, num_layers=2
        )
        for name, width in (("wide", 64), ("narrow", 48), ("spare", 48))
    }
    return compile_graph(lm.GraphSpec.parse(data), facts=facts, tools=())


def as_shown(error: GraphError, code: str) -> str:
    problem = next(p for p in error.problems if p.code == code)
    return f"{code}  {problem.path}: {problem.message}\n       fix: {problem.hint}"


def identity_links(g: dict[str, Any]) -> None:
    put(g, "agents", 1, "backbone", to="wide")
    del g["backbones"]["narrow"]
    for e in g["edges"]:
        e["link"] = {"kind": "identity"}


def text_edge(g: dict[str, Any]) -> None:
    put(g, "edges", 0, "link", to={"kind": "text"})


def train_outer(change: Callable[[dict[str, Any]], Any]) -> None:
    plan = compiled(change)
    check_reach(plan, choose_links(plan, "outer"))


def saved_team() -> Path:
    tiny = tiny_backbone("llama", 16, folder="tiny")
    graph = lm.templates.distillation(
        expert=tiny, learner=tiny, rounds=2, latent_steps=2, link="recursive", inner="recursive"
    )
    return Path(graph.compile().load().save_pretrained("team"))


def damage_manifest() -> None:
    path = saved_team() / "latentmas.json"
    path.write_text(re.sub(r'("digest": ")[0-9a-f]{12}', r"\g<1>000000000000", path.read_text()))
    lm.System.from_pretrained("team")


def damage_weights() -> None:
    path = saved_team() / "links.safetensors"
    weights = load_file(path)
    weights.pop(min(weights))
    save_file(weights, path)
    lm.System.from_pretrained("team")


def train_into_nan() -> None:
    system = lm.System.from_pretrained(saved_team())
    for parameter in system.link(system.link_ids()[-1]).parameters():
        parameter.data.fill_(float("nan"))
    config = lm.OuterConfig("out", max_steps=1, use_cpu=True, probe_stability=False)
    rows = [{"question": "3 + 4?", "answer": "7"}]
    lm.OuterTrainer(system, config, train_dataset=rows).train()


def edit_and_record() -> None:
    system = lm.System.from_pretrained(saved_team())
    system.run(["3 + 4?"], manifest="run.json", edit_message=lambda name, message_BKD: message_BKD)


def save_a_secret() -> None:
    graph = lm.Graph("solo", inputs=["question"], rounds=1)
    prompt = "Use the key hf_" + "0123456789" * 3 + ": {{ question }}"
    graph.add_agent("alone", tiny_backbone("llama", 16, folder="tiny"), prompt=prompt)
    graph.output("alone").compile().load().save_pretrained("team")


def ask_for_code() -> None:
    data = sound()
    data["backbones"]["wide"]["trust_remote_code"] = True
    Path("team.json").write_text(json.dumps(data))
    lm.Graph.load("team.json")


def bare_backbone() -> None:
    @families.register("no_table")
    class NoTable(Auto):
        """Input embeddings are computed, not looked up."""

        provides = frozenset({"head", "tokenizer"})

    try:
        compiled(lambda g: put(g, "backbones", "narrow", "family", to="no_table"))
    finally:
        families._entries.pop("no_table")


def without_bitsandbytes() -> None:
    def quantised(g: dict[str, Any]) -> None:
        put(g, "backbones", "wide", to={"source": "./t5", "quantization": "bitsandbytes:nf4"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_libraries, "find_spec", lambda name: None)
        compiled(quantised)


# What raises the codes that compiling does not.
LATER: dict[str, Callable[[], Any]] = {
    "LM124": bare_backbone,
    "LM206": without_bitsandbytes,
    "LM401": lambda: train_outer(text_edge),
    "LM402": lambda: train_outer(identity_links),
    "LM403": train_into_nan,
    "LM501": damage_manifest,
    "LM502": lambda: lm.System.from_pretrained("elsewhere"),
    "LM503": damage_weights,
    "LM504": ask_for_code,
    "LM511": lambda: push_folder(saved_team(), "team"),
    "LM512": edit_and_record,
    "LM513": save_a_secret,
}


def message_of(code: str) -> str:
    """What the code says, in the form of the docs."""
    with pytest.raises(LatentMASError) as caught:
        compiled(MISTAKES[code]) if code in MISTAKES else LATER[code]()
    if isinstance(caught.value, GraphError):
        text = as_shown(caught.value, code)
    else:
        text = str(caught.value)
    text = text.replace(str(Path.cwd().resolve()), "/models")
    text = text.replace(f"({lm.__version__})", "(0.1.0)")
    return re.sub(r"\b(?!0{12})[0-9a-f]{12}\b", "4b1d2f0c9a7e", text)


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    return dict(SECTION.findall((DOCS / "errors.md").read_text(encoding="utf-8")))


def test_every_code_has_a_section(sections):
    assert list(sections) == list(CODES)
    done = CliRunner().invoke(app, ["errors", "LM103"])
    assert done.stdout.strip() == f"## LM103\n{sections['LM103']}".strip()
    for code, body in sections.items():
        assert CODES[code] in body.replace("**", "").lower() or CODES[code].lower() in body.lower()
        assert "\nFix: " in body, code


@pytest.mark.parametrize("code", CODES)
def test_the_message_that_is_shown_is_the_true_one(code: str, sections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t5").mkdir()
    Path("t5/config.json").write_text('{"model_type": "t5", "d_model": 16, "vocab_size": 32}')
    assert f"```\n{message_of(code)}\n```" in sections[code]


# ── reference and links ───────────────────────────────────────────────────────────────────────


# Public classes that users meet as results of others, or import from a package below.
REACHED = {f"runtime.{name}" for name in ("LatentReading", "Mesh", "RunRecord", "Tap", "StepTimes")}
REACHED |= {"runtime.WarmUp"}
REACHED |= {
    "viz.DepthMap",
    "evaluation.graders.graders",
    "evaluation.benchmarks.benchmarks",
    "evaluation.engines.engines",
    "runtime.Retry",
}
REACHED |= {"testing.random_system", "links.LinkOptions", "backbones.Family"}
REACHED |= {"training.rollout_accuracy", "links.LinkBackbone", "links.LinkReads"}
REACHED |= {f"training.{name}" for name in ("Choice", "LinkConfig", "LinkTrainer", "Loop", "Start")}
REACHED |= {f"training.{name}" for name in ("Training", "TrainingPlan", "plan_training")}
REACHED |= {f"serve.mcp.{name}" for name in ("serve_http", "serve_stdio", "team_server")}
REACHED |= {"serve.playground.router"}
REACHED |= {f"training.{name}" for name in ("PublishedRows", "PublishedSet", "read_published")}
REACHED |= {f"studies.{name}" for name in studies.__all__} | {"studies.baselines.baselines"}
REACHED |= {"metering.Cost", "metering.CostMeter", "studies.analyses.analyses"}
REACHED |= {
    f"studies.analyses.{n}" for n in ("Analysis", "Curves", "Finding", "Material", "Message")
}
REACHED -= {f"studies.{name}" for name in ("analyse", "measure_costs", "run_baseline", "sweep")}
REACHED -= {"studies.Cost", "studies.CostMeter"}
REACHED |= {f"studies.paper.{name}" for name in paper.__all__}


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
    shown = set(re.findall(r"^::: latentmas\.([\w.]+)$", pages, re.MULTILINE))
    names = set(lm.__all__) - {"templates"} | {"testing.tiny_backbone"} | REACHED
    names |= {f"evaluation.{name}" for name in evaluation.__all__} - {
        "evaluation.graders",
        "evaluation.benchmarks",
        "evaluation.engines",
        *(f"evaluation.{name}" for name in lm.__all__),  # shown under the shorter name
    }
    names |= {f"serve.{name}" for name in serve.__all__}
    homes = lm.templates.PRESETS
    assert shown == names | {f"templates.{homes.get(n, n)}.{n}" for n in lm.templates.names()}
    listed = set(re.findall(r"`\]\[latentmas\.([\w.]+)\]", (DOCS / "api/index.md").read_text()))
    assert listed == names | {f"templates.{name}" for name in lm.templates.names()}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in found)
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("path", MARKDOWN, ids=of)
def test_links_lead_somewhere(path: Path):
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
        page = path.parent / target if target else path
        assert page.exists(), target
        if anchor and page.suffix == ".md":
            assert anchor[1:] in anchors(page), f"{target}{anchor}"
