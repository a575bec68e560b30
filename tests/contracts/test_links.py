"""What every link kind must do; a new kind is tested by being registered."""

from __future__ import annotations

import copy
import inspect
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import latentmas as lm
from latentmas.backbones import LoadedBackbone, load_backbone, read_info
from latentmas.links import Link, link_kinds
from latentmas.plan import PlanBackbone
from tests.teams import tiny

KINDS = link_kinds.names()
ROLES = ("inner", "outer")
WIDTHS = [(16, 16), (16, 24), (24, 16)]
B, K = 3, 5
MARK_ROLES = pytest.mark.parametrize("role", ROLES)
MARK_KINDS = pytest.mark.parametrize("name", KINDS)


def bridges(name: str, role: str, S: int, D: int) -> bool:
    try:
        link_kinds.get(name).resolve(role, {}, S, D)
    except ValueError:
        return False
    return True


EVERY = [(name, role, S, D) for name in KINDS for role in ROLES for S, D in WIDTHS]
CASES = [case for case in EVERY if bridges(*case)]
MARK_CASES = pytest.mark.parametrize(("name", "role", "S", "D"), CASES)


def make(name: str, role: str, S: int, D: int, **options: object) -> Link:
    """A link with its random start; a kind that needs backbones gets tiny ones of these widths."""
    kind = link_kinds.get(name)
    torch.manual_seed(7)
    link = kind(kind.resolve(role, options, S, D), S, D)
    if kind.needs:
        link.attach(backbone(S), backbone(D))
    return link


@cache
def backbone(width: int, dtype: str = "float32") -> LoadedBackbone:
    spec = tiny("llama", width)
    planned = PlanBackbone(spec=spec, info=read_info(spec), agents=("one",))
    return load_backbone(planned, dtype=dtype)


def latents(S: int, seed: int = 0) -> Tensor:
    return torch.randn(B, K, S, generator=torch.Generator().manual_seed(seed)) * 2 + 0.3


def alignment(S: int, D: int, seed: int = 1) -> Tensor:
    return torch.randn(D, S, generator=torch.Generator().manual_seed(seed)) / S**0.5


# --- shape and dtype --------------------------------------------------------------------------


@MARK_CASES
def test_maps_source_width_to_target_width(name, role, S, D):
    link = make(name, role, S, D)
    out_BKD = link(latents(S))
    assert out_BKD.shape == (B, K, D)
    assert out_BKD.dtype == torch.float32
    assert out_BKD.isfinite().all()
    assert (link.in_dim, link.out_dim) == (S, D)


@MARK_CASES
def test_each_latent_is_mapped_on_its_own(name, role, S, D):
    """A rollout feeds one latent at a time, a transfer all of them: both must agree."""
    link = make(name, role, S, D)
    h_BKS = latents(S)
    whole_BKD = link(h_BKS)
    for k in range(K):
        assert torch.allclose(link(h_BKS[:, k]), whole_BKD[:, k], atol=1e-6)
    assert torch.allclose(link(h_BKS[1:2]), whole_BKD[1:2], atol=1e-6)


@MARK_KINDS
def test_apply_to_takes_latents_of_any_dtype(name):
    link = make(name, "outer", 16, 16)
    given = latents(16).bfloat16()
    out_BKD = link.apply_to(given)
    if link.dtype is None:
        assert out_BKD.dtype == torch.bfloat16
        return
    assert out_BKD.dtype == link.dtype == torch.float32
    assert torch.equal(out_BKD, link(given.float()))


@MARK_KINDS
def test_the_input_is_left_alone(name):
    link = make(name, "outer", 16, 16)
    given = latents(16)
    kept = given.clone()
    link(given)
    assert torch.equal(given, kept)


@pytest.mark.parametrize(("name", "role", "S", "D"), [c for c in EVERY if c not in CASES])
def test_a_kind_that_cannot_bridge_widths_names_both(name, role, S, D):
    assert S != D
    with pytest.raises(ValueError, match=f"{S} and {D}"):
        link_kinds.get(name).resolve(role, {}, S, D)


# --- gradient ---------------------------------------------------------------------------------


@MARK_CASES
def test_gradient_reaches_every_parameter_and_the_input(name, role, S, D):
    link = make(name, role, S, D)
    for tensor in link.parameters():
        if not tensor.any():  # a branch that starts at zero lets nothing through before it moves
            nn.init.normal_(tensor, std=0.1)
    h_BKS = latents(S).requires_grad_()
    (link(h_BKS) * latents(D, seed=3)).sum().backward()
    assert h_BKS.grad is not None and h_BKS.grad.abs().sum(dim=-1).min() > 0
    for parameter, tensor in link.named_parameters():
        assert tensor.grad is not None and tensor.grad.abs().max() > 0, parameter


@MARK_ROLES
@MARK_KINDS
def test_gradients_are_those_of_the_function(name, role):
    link = make(name, role, 8, 8).double()
    if link.needs:
        link.attach(backbone(8, "float64"), backbone(8, "float64"))
    h_BKS = latents(8)[:1, :2].double().requires_grad_()
    assert torch.autograd.gradcheck(link, (h_BKS,))


# --- building, saving -------------------------------------------------------------------------


@MARK_CASES
def test_builds_without_memory_with_the_same_weights(name, role, S, D):
    real = make(name, role, S, D)
    with torch.device("meta"):
        meta = type(real)(real.options, S, D)
    assert all(p.is_meta for p in meta.parameters())
    shapes = {key: p.shape for key, p in real.named_parameters()}
    assert {key: p.shape for key, p in meta.named_parameters()} == shapes


@MARK_CASES
def test_a_state_dict_restores_every_bit(name, role, S, D):
    link = make(name, role, S, D)
    torch.manual_seed(99)
    other = copy.deepcopy(link)
    for tensor in other.state_dict().values():
        tensor.normal_()
    other.load_state_dict(copy.deepcopy(link.state_dict()))
    assert torch.equal(other(latents(S)), link(latents(S)))
    assert set(link.state_dict()) == {key for key, _ in link.named_parameters()}


@MARK_ROLES
@MARK_KINDS
def test_resolved_options_are_plain_and_resolve_to_themselves(name, role):
    kind = link_kinds.get(name)
    resolved = kind.resolve(role, {}, 16, 16)
    plain = resolved.model_dump(mode="json")
    assert all(isinstance(v, str | int | float | bool | None) for v in plain.values())
    assert kind.resolve(role, plain, 16, 16) == resolved
    assert kind.Options.model_validate(plain) == resolved


@MARK_KINDS
def test_equal_seeds_make_equal_links(name):
    one, two = make(name, "outer", 16, 16), make(name, "outer", 16, 16)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


# --- starts -----------------------------------------------------------------------------------


@MARK_CASES
def test_every_init_of_a_kind_runs(name, role, S, D):
    kind = link_kinds.get(name)
    assert "default" in kind.inits
    for init in sorted(kind.inits - {"default"}):
        for aligned in (None, alignment(S, D)):
            link = make(name, role, S, D)
            link.start(init, aligned)
            assert link(latents(S)).isfinite().all(), init
            assert link(latents(S)).abs().max() > 0, init


@pytest.mark.parametrize(
    ("name", "S", "D"),
    [
        (name, S, D)
        for name, role, S, D in CASES
        if role == "outer" and "ridge" in link_kinds.get(name).inits
    ],
)
def test_ridge_uses_the_alignment(name, S, D):
    outputs = []
    for seed in (1, 2):
        link = make(name, "outer", S, D)
        link.start("ridge", alignment(S, D, seed))
        outputs.append(link(latents(S)))
    assert (outputs[0] - outputs[1]).abs().max() > 0.1


@pytest.mark.parametrize(("S", "D"), WIDTHS)
@pytest.mark.parametrize("name", ["linear", "linear_residual", "mlp_residual", "recursive"])
def test_ridge_starts_as_the_aligned_map(name, S, D):
    link = make(name, "outer", S, D)
    A_DS = alignment(S, D)
    link.start("ridge", A_DS)
    aligned = latents(S) @ A_DS.T
    if name == "recursive":
        aligned = nn.functional.layer_norm(aligned, (D,))
    assert torch.allclose(link(latents(S)), aligned, atol=1e-5)


@MARK_ROLES
@pytest.mark.parametrize("name", ["linear", "linear_residual", "mlp_residual", "recursive"])
def test_near_identity_is_the_identity_up_to_the_last_norm(name, role):
    link = make(name, role, 16, 16)
    link.start("near_identity", None)
    h_BKS = latents(16)
    wanted = nn.functional.layer_norm(h_BKS, (16,)) if name == "recursive" else h_BKS
    assert torch.allclose(link(h_BKS), wanted, atol=1e-6)


@MARK_KINDS
def test_a_start_that_a_kind_lacks_is_refused_when_compiling(name):
    kind = link_kinds.get(name)
    for init in {"near_identity", "ridge"} - kind.inits:
        with pytest.raises(lm.GraphError, match="LM121") as caught:
            pair(link=name, init=init)
        assert f"has no initialisation '{init}'" in str(caught.value)
    for init in kind.inits:
        assert pair(link=name, init=init).link("outer.one->two.one").init == init


# --- scale ------------------------------------------------------------------------------------


@MARK_CASES
def test_scale_output_scales_exactly_or_says_that_it_cannot(name, role, S, D):
    link = make(name, role, S, D)
    before = link(latents(S)).detach().clone()
    scaled = link.scale_output(2.0)  # a power of two: no rounding
    after = link(latents(S)).detach()
    assert isinstance(scaled, bool)
    assert torch.equal(after, before * (2.0 if scaled else 1.0))
    if scaled:
        assert link.scale_output(0.3)
        assert torch.allclose(link(latents(S)), before * 0.6, atol=1e-5)
    assert all(p.requires_grad for p in link.parameters())


# --- names, words, options --------------------------------------------------------------------


@MARK_KINDS
def test_the_name_is_the_files_name_and_the_class_explains_itself(name):
    kind = link_kinds.get(name)
    assert issubclass(kind, Link)
    if kind.__module__.startswith("latentmas."):
        assert kind.__module__ == f"latentmas.links.{name}"
    text = inspect.cleandoc(kind.__dict__["__doc__"])
    places = [text.index(f"\n{part}:") for part in ("Reference", "Inputs", "Relations", "Example")]
    assert places == sorted(places)


def test_the_kinds_of_the_method_are_there():
    kinds = {"recursive", "linear", "linear_residual", "mlp", "mlp_residual", "identity"}
    assert kinds <= set(KINDS)


@MARK_ROLES
@MARK_KINDS
def test_an_unknown_option_is_refused(name, role):
    kind = link_kinds.get(name)
    with pytest.raises(ValueError, match="no_such_option"):
        kind.resolve(role, {"no_such_option": 1}, 16, 16)


FACTS = {
    name: lm.BackboneInfo(model_type="llama", hidden_size=width, vocab_size=9, num_layers=1)
    for name, width in (("x/a", 16), ("x/b", 24))
}


def pair(second: str = "x/a", **edge: object) -> lm.Plan:
    graph = lm.Graph("pair", inputs=["q"], rounds=1)
    graph.add_agent("one", lm.Backbone("x/a"), prompt="{{ q }}")
    graph.add_agent("two", lm.Backbone(second), prompt="{{ one }}")
    graph.connect("one", "two", **edge)
    return graph.output("two").compile(facts=FACTS)


@MARK_KINDS
def test_an_unknown_option_of_an_edge_is_a_problem_of_the_graph(name):
    with pytest.raises(lm.GraphError, match="LM121") as caught:
        pair(link=name, no_such_option=1)
    assert "no_such_option" in str(caught.value)


@MARK_KINDS
def test_the_compiler_counts_what_the_link_has(name):
    kind = link_kinds.get(name)
    for second, width in (("x/a", 16), ("x/b", 24)):
        try:
            plan = pair(second, link=name)
        except lm.GraphError as error:
            assert [p.code for p in error.problems] == ["LM120"]
            assert "16" in str(error) and "24" in str(error)
            continue
        planned = plan.link("outer.one->two.one")
        link = kind(kind.Options.model_validate(planned.options), 16, width)
        assert planned.n_parameters == sum(p.numel() for p in link.parameters())
        assert (planned.norm == "embedding") == link.scale_output(1.0)


def test_an_identity_residual_cannot_bridge_widths():
    for name in ("linear_residual", "mlp_residual", "recursive"):
        with pytest.raises(ValueError, match="16 and 24"):
            link_kinds.get(name).resolve("outer", {"residual": "identity"}, 16, 24)


# --- published shapes -------------------------------------------------------------------------


def count(name: str, role: str, S: int, D: int, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in make(name, role, S, D, **options).parameters())


@pytest.mark.parametrize(
    ("width", "parameters"), [(2560, 13_122_560), (2048, 8_400_896), (1536, 4_727_808)]
)
def test_inner_links_have_the_published_size(width, parameters):
    assert count("recursive", "inner", width, width) == parameters
    assert parameters == 2 * width**2 + 6 * width


@pytest.mark.parametrize(("S", "D"), [(2048, 2048), (2560, 1536), (1536, 2560), (16, 24)])
def test_outer_links_have_the_published_size(S, D):
    """Two norms, S→2D→D, and a projected residual S→D."""
    assert count("recursive", "outer", S, D) == 3 * S * D + 2 * D**2 + 2 * S + 6 * D


def test_expansion_widens_the_hidden_layer():
    one, four = (count("recursive", "outer", 32, 16, expansion=e) for e in (1, 4))
    assert four - one == 3 * 16 * (32 + 1 + 16)
    with pytest.raises(ValueError, match="expansion"):
        link_kinds.get("recursive").resolve("outer", {"expansion": 0}, 16, 16)


def test_the_ablations_differ_from_each_other_by_their_names():
    S, D = 32, 16
    linear, residual = S * D + D, S * D + D
    mlp = S * D + D + D * D + D
    assert count("linear", "outer", S, D) == linear
    assert count("linear_residual", "outer", S, D) == linear + residual
    assert count("mlp", "outer", S, D) == mlp
    assert count("mlp_residual", "outer", S, D) == mlp + residual
    assert count("linear_residual", "inner", D, D) == D * D + D
    assert count("identity", "inner", D, D) == 0
