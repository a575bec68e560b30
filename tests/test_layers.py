"""Imports point down; the light layers stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "latentmas"
BASE = {"redact", "errors", "registry", "lazy", "cache", "atomic", "safe_data", "sandbox", "tools"}
DATA = BASE | {"spec", "prompts", "plan"}
# What each layer may import from the package; a layer may always import itself.
ALLOWED: dict[str, set[str]] = {
    "redact": set(),
    "errors": {"redact"},
    "registry": {"redact", "errors"},
    "cache": set(),
    "lazy": set(),
    "arguments": {"redact", "errors"},
    "atomic": {"redact", "errors"},
    "safe_data": {"redact", "errors"},
    "tables": {"redact", "errors", "safe_data"},
    "sandbox": {"redact", "errors"},
    "tools": {"redact", "errors", "registry", "sandbox"},
    "spec": BASE,
    "prompts": BASE | {"spec"},
    "templates": BASE | {"spec", "prompts"},
    "plan": BASE | {"spec", "prompts"},
    "links": DATA,
    "backbones": DATA,
    "compiler": DATA | {"links", "backbones"},
    "engine": DATA | {"arguments", "links", "backbones"},
    "generation": DATA | {"arguments", "links", "backbones", "engine"},
    "runtime": DATA | {"arguments", "links", "backbones", "engine", "generation"},
    "cost": DATA | {"arguments", "links", "backbones", "engine", "generation", "runtime"},
    "viz": DATA | {"runtime"},
    "evaluation": DATA | {"tables", "engine", "generation", "runtime"},
    "environment": {"__init__"},
    "metering": {"redact", "errors"},
    "io": DATA
    | {"links", "backbones", "compiler", "engine", "generation", "runtime"}
    | {"evaluation", "environment", "__init__"},
    "interop": DATA
    | {
        "templates",
        "links",
        "backbones",
        "compiler",
        "engine",
        "generation",
        "runtime",
        "io",
        "cli",
        "__init__",
    },
    "training": DATA
    | {"links", "backbones", "engine", "generation", "runtime", "io", "evaluation", "environment"}
    | {"tables", "metering"},
    "studies": DATA
    | {"arguments", "links", "backbones", "compiler", "engine", "generation", "runtime", "cost"}
    | {"evaluation", "environment", "io", "training", "viz", "tables", "templates", "metering"},
    "testing": DATA | {"backbones", "engine", "runtime"},
    "serve": DATA
    | {"arguments", "backbones", "engine", "generation", "runtime", "viz", "__init__"},
}
# Of backbones the compiler may use the facts, which are read from a config, and what a family says
# of its models; never the weights.
OF_BACKBONES = {"read_info", "_facts", "UnsuitableBackboneError", "RefusedBackboneError"}
OF_BACKBONES |= {"AdapterError", "given_info", "parts_of", "with_adapter_facts"}
PARTS = {("compiler", "backbones"): OF_BACKBONES}
# Of these, other layers import only what `latentmas.<layer>` itself offers.
FACES = {
    "safe_data",
    "studies",
    "metering",
    "tables",
    "sandbox",
    "prompts",
    "engine",
    "generation",
    "viz",
}
FREE = {"__init__", "__main__", "cli", "demo"}
LIGHT = {
    "redact",
    "errors",
    "registry",
    "cache",
    "arguments",
    "lazy",
    "atomic",
    "safe_data",
    "tables",
    "sandbox",
    "tools",
    "spec",
    "prompts",
    "plan",
    "templates",
    "viz",
    "__init__",
}
HEAVY = {"torch", "transformers", "accelerate", "networkx", "tokenizers"}
# Convenience methods that forward lazily, inside a function: the one exception to the rule.
FORWARDS = {
    ("spec/graph.py", "compiler"),
    ("spec/graph.py", "plan"),  # for annotations only
    ("plan/plan.py", "compiler"),
    ("plan/plan.py", "cost"),
    ("plan/plan.py", "runtime"),
    ("plan/drawn.py", "viz"),
    ("plan/plan.py", "viz"),
    ("runtime/methods/sharing.py", "io"),
    ("runtime/methods/estimating.py", "cost"),
    ("runtime/methods/adapters.py", "io"),
    ("runtime/system.py", "io"),
    ("runtime/result.py", "viz"),
    ("evaluation/page.py", "viz"),
    # The report on the paper's claims runs the tasks of the demo, and tiny models.
    ("studies/paper/tasks.py", "demo"),
    ("studies/paper/sections/relay.py", "demo"),
    ("studies/paper/work.py", "testing"),
}


def test_something_imports_each_extra() -> None:
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    modules = {"tavily-python": "tavily", "math-verify": "math_verify"}
    modules |= {"nvidia-ml-py": "pynvml"}
    modules |= {"inspect-ai": "inspect_ai", "lm-eval": "lm_eval"}
    found = {
        name.split(".")[0]
        for path in PACKAGE.rglob("*.py")
        for name, _ in imports(ast.parse(path.read_text()))
    }
    for extra, packages in extras["optional-dependencies"].items():
        for package in packages if extra not in ("docs", "dev") else ():
            name = re.split(r"[\[><=;]", package)[0]  # without extras, version and markers
            assert modules.get(name, name) in found, f"extra {extra!r}: nothing imports {name}"


def layer_of(module: str) -> str:
    """The layer of a dotted name; a plain name of the package's face is `__init__`."""
    name = module.split(".")[1] if "." in module else "__init__"
    known = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
    return name if known else "__init__"


def _inside(module: str) -> bool:
    """Whether a dotted name leads into a module of a package, past its `__init__`."""
    return (PACKAGE.parent / Path(*module.split(".")[:3])).with_suffix(".py").exists()


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Imported modules, and whether the import runs when the file is imported."""
    late = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef) or _is_typing(block)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((f"{base}.{alias.name}", id(node) not in late) for alias in node.names)


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_down(path: Path):
    name = path.relative_to(PACKAGE).as_posix()
    layer = name.split("/")[0].removesuffix(".py")
    for module, eager in imports(ast.parse(path.read_text())):
        assert not module.startswith("."), f"{name} imports {module}; write the full name"
        top = module.split(".")[0]
        if layer in LIGHT:
            assert top not in HEAVY, f"{name} imports {module}; this layer stays light"
        if top != "latentmas":
            continue
        target = layer_of(module)
        if target in FACES and layer != target:
            assert not _inside(module), f"{name} imports {module}; import latentmas.{target}"
        private = target != layer and any(part.startswith("_") for part in module.split(".")[2:3])
        assert not private or target == "__init__", f"{name} imports {module}, which is private"
        if layer in FREE:
            continue
        if (name, target) in FORWARDS and not eager:
            continue
        assert layer in ALLOWED, f"{name}: give the new layer a row in ALLOWED"
        assert target == layer or target in ALLOWED[layer], f"{name} imports {module}"
        parts = PARTS.get((layer, target))
        assert parts is None or parts & set(module.split(".")), f"{name} imports {module}"


@pytest.mark.parametrize(
    "code",
    [
        "import latentmas",
        "from latentmas import Graph, Backbone, templates",
        "from latentmas import training_report; training_report",
    ],
)
def test_importing_the_package_is_light(code: str):
    check = f"import sys; {code}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
