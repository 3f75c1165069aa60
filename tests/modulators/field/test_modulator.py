"""The field against its formula in NumPy float64 (Cayley–Menger determinants), its numbers, and what it refuses."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.geometry.simplices.shapes import features_of as features_of_edges
from modulators import FieldModulator, ResidualStream
from modulators.field.arithmetic import _normed

STREAM = ResidualStream(d_model=16, n_layers=2, vocab_size=20)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cayley_menger(squared: np.ndarray, k: int) -> np.ndarray:
    """Squared volume from the squared edges (..., k(k+1)/2)."""
    bordered = np.ones((*squared.shape[:-1], k + 2, k + 2))
    for i in range(k + 2):
        bordered[..., i, i] = 0
    for column, (i, j) in enumerate(combinations(range(1, k + 2), 2)):
        bordered[..., i, j] = bordered[..., j, i] = squared[..., column]
    return (-1) ** (k + 1) / (2**k * factorial(k) ** 2) * np.linalg.det(bordered)


def features_of(modulator: FieldModulator, name: str, a: np.ndarray) -> np.ndarray:
    """What the gate of one expert reads, with the weights as they are in the state dict."""
    state = {name: t.double().numpy() for name, t in modulator.state_dict().items()}
    k = int(name[1:])
    if modulator.features == "constant":
        return np.ones((*a.shape[:-1], k * (k + 1) // 2 + 1))
    constants = {name: t.double().numpy() for name, t in modulator.named_buffers()}
    deform = a @ state[f"experts.{name}.to_deform.weight"].T + state[f"experts.{name}.to_deform.bias"]
    scale = state.get("deform_scale", np.array(0.05))
    vertices = constants[f"experts.{name}.template"] + scale * deform.reshape(*a.shape[:-1], k + 1, -1)
    squared = np.stack(
        [((vertices[..., i, :] - vertices[..., j, :]) ** 2).sum(-1) for i, j in combinations(range(k + 1), 2)], -1
    )
    features = np.concatenate([squared, cayley_menger(squared, k)[..., None]], -1)
    if modulator.features != "simplex":
        features = vertices.reshape(*a.shape[:-1], -1) @ constants[f"experts.{name}.readout"].T
    centred = features - features.mean(-1, keepdims=True)
    features = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return features * state[f"experts.{name}.norm.weight"] + state[f"experts.{name}.norm.bias"]


def reference(modulator: FieldModulator, h: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """The specification's formula."""
    state = {name: t.double().numpy() for name, t in modulator.state_dict().items()}
    active = modulator.active_dims.numpy()
    a, factor = h[..., active], np.array(1.0)
    for column, name in enumerate(modulator.expert_names):
        features = features_of(modulator, name, a)
        gate = features @ state[f"gate_projs.{name}.weight"].T + state[f"gate_projs.{name}.bias"]
        if modulator.centred:
            factor = factor * (1 + alphas[column] * np.tanh(gate))
            continue
        gate = sigmoid(gate)
        if modulator.validity_gate:
            head = f"experts.{name}.validity_proj"
            gate = gate * sigmoid(features @ state[f"{head}.weight"].T + state[f"{head}.bias"])
        factor = factor * ((1 - alphas[column]) + alphas[column] * gate)
    out = h.copy()
    out[..., active] = a * factor
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"validity_gate": False},
        {"alpha_bound": "clamp"},
        {"null_space_position": "scattered"},
        {"null_space_fraction": 0.0},
        {"expert_ks": (2, 3, 5)},
        {"gate": "centred"},
        {"gate": "centred", "null_space_position": "scattered", "alpha_bound": "clamp"},
        {"gate": "centred", "expert_ks": (2, 3, 5)},
        {"gate": "centred", "features": "linear"},
        {"gate": "centred", "features": "linear", "expert_ks": (1, 5)},
        {"gate": "centred", "features": "random"},
        {"gate": "centred", "features": "constant", "null_space_fraction": 0.0},
    ],
    ids=str,
)
def test_it_is_the_formula(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    modulator = FieldModulator(STREAM, **options)
    with torch.no_grad():
        for p in modulator.parameters():
            p.add_(0.3 * torch.randn_like(p))
    theta = modulator.alpha_logits.detach().double().numpy()
    if modulator.centred:
        alphas = sigmoid(theta)
    else:
        alphas = sigmoid(theta).clip(0.001, 0.35) if "alpha_bound" in options else 0.001 + 0.349 * sigmoid(theta)
    np.testing.assert_allclose(modulator.alphas.detach().numpy(), alphas, rtol=1e-6)
    h = 3 * torch.randn(2, 70, 16)
    for layer in (0, 1):
        expected = reference(modulator, h.double().numpy(), alphas[layer])
        np.testing.assert_allclose(modulator(h, layer).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
        double = FieldModulator(STREAM, **options).double()
        double.load_state_dict(modulator.state_dict())
        for (_, ours), (_, theirs) in zip(double.named_buffers(), modulator.named_buffers(), strict=True):
            ours.copy_(theirs)  # templates of the same rounding
        np.testing.assert_allclose(double(h.double(), layer).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_t5_small_has_the_specified_number_of_parameters() -> None:
    stream = ResidualStream(512, 6, 32128)
    modulator = FieldModulator(stream)
    assert sum(p.numel() for p in modulator.parameters()) == 38_552
    assert sum(p.numel() for p in FieldModulator(stream, validity_gate=False).parameters()) == 38_532
    parts = [
        "to_deform.weight",
        "to_deform.bias",
        "norm.weight",
        "norm.bias",
        "validity_proj.weight",
        "validity_proj.bias",
    ]
    expected = {f"experts.k{k}.{part}" for k in (1, 2, 4) for part in parts}
    expected |= {f"gate_projs.k{k}.{part}" for k in (1, 2, 4) for part in ("weight", "bias")} | {"alpha_logits"}
    assert set(modulator.state_dict()) == expected
    assert modulator.expert_names == ("k1", "k2", "k4")
    templates = {name: tuple(t.shape) for name, t in modulator.named_buffers()}
    assert templates == {f"experts.k{k}.template": (k + 1, 8) for k in (1, 2, 4)}


CENTRED = {
    # numbers at mini's sizes, and how many of them are trained
    "simplex": (9_733, 9_733),
    "linear": (9_733, 9_733),
    "random": (9_733, 1_972),
    "constant": (1_938, 1_938),
}


@pytest.mark.parametrize("features", CENTRED)
def test_a_centred_gate_has_the_specified_numbers_and_starts_as_the_identity(features: Any) -> None:
    stream = ResidualStream(128, 6, 32128)
    modulator = FieldModulator(stream, gate="centred", features=features)
    sizes = [(p.numel(), p.requires_grad) for p in modulator.parameters()]
    assert (sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)) == CENTRED[features]
    assert not any("validity" in name for name in modulator.state_dict())
    torch.testing.assert_close(modulator.alphas, torch.full((6, 3), 0.5), rtol=0, atol=0)
    for dtype in (torch.float32, torch.bfloat16):
        h = (10 * torch.randn(4, 50, 128)).to(dtype)
        assert torch.equal(modulator(h, 2), h)
    h = torch.randn(4, 50, 128, requires_grad=True)
    modulator(h, 0).square().sum().backward()
    moves = {name for name, p in modulator.named_parameters() if p.grad is not None and p.grad.any()}
    # An edge's features are zero (below), and of the others nothing but the gates is seen through gates of zero.
    weights = {f"gate_projs.k{k}.weight" for k in (1, 2, 4)} - (
        {"gate_projs.k1.weight"} if features == "simplex" else set()
    )
    assert moves == weights | {f"gate_projs.k{k}.bias" for k in (1, 2, 4)}


def test_linear_features_read_as_many_independent_directions_as_a_shape_has_features() -> None:
    modulator = FieldModulator(STREAM, gate="centred", features="linear", expert_ks=(1, 2, 4), expert_edim=4)
    for name, readout in modulator.named_buffers():
        if name.endswith("readout"):
            torch.testing.assert_close(readout @ readout.t(), torch.eye(len(readout)))
            cosines = scipy.fft.dct(np.eye(readout.shape[1]), norm="ortho").T[: len(readout)]
            np.testing.assert_allclose(readout.numpy(), cosines, atol=1e-6)
    bottom = FieldModulator(STREAM, gate="centred", features="linear", expert_ks=(1,), expert_edim=1)
    assert dict(bottom.named_buffers())["experts.k1.readout"].shape == (2, 2)


@pytest.mark.parametrize("features", ["simplex", "linear", "random", "constant"])
@pytest.mark.parametrize("position", ["tail", "scattered"])
def test_built_on_meta_it_makes_its_constants_when_it_gets_its_tensors(features: Any, position: Any) -> None:
    def build() -> FieldModulator:
        return FieldModulator(STREAM, gate="centred", features=features, null_space_position=position)

    whole, h = build(), torch.randn(2, 5, 16)
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.3 * torch.randn_like(p))
    with torch.device("meta"):
        assigned, emptied = build(), build()
    assigned.load_state_dict(whole.state_dict(), assign=True)
    emptied.to_empty(device="cpu").load_state_dict(whole.state_dict())
    for modulator in (assigned, emptied):
        assert torch.equal(modulator(h, 1), whole(h, 1))


@pytest.mark.parametrize(
    "how", [{}, *({"gate": "centred", "features": features} for features in CENTRED)], ids=lambda how: str(how)
)
def test_gradcheck(how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    modulator = FieldModulator(ResidualStream(4, 1, 5), expert_edim=4, initial_alpha=0.2, **how).double()
    with torch.no_grad():
        for p in modulator.gate_projs.parameters():
            p.add_(0.3 * torch.randn_like(p))
    h = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    trained = [p for p in modulator.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda h, *_: modulator(h, 0), (h, *trained))


def test_the_edge_expert_is_a_constant() -> None:
    """Both features of k = 1 are the squared edge: LayerNorm makes them 0, so the gate ignores the stream."""
    torch.manual_seed(0)
    modulator = FieldModulator(STREAM, expert_ks=(1,), initial_alpha=0.3)
    features, _ = features_of_edges(torch.randn(1, 8, 70), (1,))
    assert torch.equal(_normed(features, (1,), linear=False)[0], torch.zeros(1, 3, 70))
    h = torch.randn(2, 70, 16)
    gain = modulator(h, 0)[..., :12] / h[..., :12]
    torch.testing.assert_close(gain, gain[:1, :1].expand_as(gain), rtol=1e-5, atol=0)

    both = FieldModulator(STREAM, expert_ks=(1, 2), initial_alpha=0.3)
    both(h, 0).square().sum().backward()
    dead, alive = (both.experts[name].to_deform.weight.grad for name in ("k1", "k2"))
    assert dead is not None
    # Zero but for the rounding of g₁ − mean(g) and g₂ − mean(g), which LayerNorm's 1/√eps = 316 enlarges.
    assert dead.abs().max() < 1e-3 * alive.abs().max()
    assert both.gate_projs["k1"].bias.grad.abs().min() > 0


@pytest.mark.parametrize("position", ["tail", "scattered"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_null_space_is_bit_identical(position: Any, dtype: torch.dtype) -> None:
    """Numbers that a product by one would not all survive: NaN with a payload, infinities, −0, subnormals."""
    modulator = FieldModulator(ResidualStream(30, 1, 5), null_space_position=position)
    assert modulator.n_active == 30 - 7
    bits = torch.randint(
        0, 256, (4, 70, 30 * dtype.itemsize), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    h = bits.view(dtype)
    untouched = torch.ones(30, dtype=torch.bool)
    untouched[modulator.active_dims] = False
    assert untouched.sum() == 7
    as_int = torch.int32 if dtype == torch.float32 else torch.int16
    out = modulator(h, 0)
    assert torch.equal(out.view(as_int)[..., untouched], h.view(as_int)[..., untouched])


def test_null_space_position() -> None:
    tail = FieldModulator(STREAM)
    assert tail.active_dims.tolist() == list(range(12))
    first, again, other = (
        FieldModulator(STREAM, null_space_position="scattered", null_space_seed=seed).active_dims for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.tolist() == sorted(set(first.tolist()))
    assert FieldModulator(STREAM, null_space_fraction=0.0, null_space_position="scattered").active_dims.numel() == 16


@settings(deadline=None, max_examples=40)
@given(
    low=st.floats(0.0, 0.4),
    width=st.floats(0.05, 0.5),
    part=st.floats(0.01, 0.99),
    bound=st.sampled_from(["smooth", "clamp"]),
)
def test_alpha_starts_where_asked_and_stays_within(low: float, width: float, part: float, bound: Any) -> None:
    high = low + width
    start = low + part * width
    modulator = FieldModulator(STREAM, initial_alpha=start, alpha_min=low, alpha_max=high, alpha_bound=bound)
    assert (modulator.alphas - start).abs().max() < 1e-6
    for theta in (-50.0, 50.0):
        modulator.alpha_logits.data.fill_(theta)
        assert ((modulator.alphas >= low - 1e-6) & (modulator.alphas <= high + 1e-6)).all()


@pytest.mark.parametrize(("bound", "stuck"), [("smooth", False), ("clamp", True)])
def test_only_a_clamped_alpha_is_stuck_beyond_its_bound(bound: Any, stuck: bool) -> None:
    modulator = FieldModulator(STREAM, alpha_bound=bound)
    modulator.alpha_logits.data.fill_(2.0)
    modulator.alphas.sum().backward()
    assert (modulator.alpha_logits.grad == 0).all() == stuck


def test_parameter_groups() -> None:
    modulator = FieldModulator(STREAM)
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in modulator.parameter_groups(lr=1.0, weight_decay=0.01)}
    assert rates == {"experts": (0.1, 0.01), "gates": (1.0, 0.01), "alphas": (0.5, 0.0)}
    centred = FieldModulator(STREAM, gate="centred").parameter_groups(lr=1.0, weight_decay=0.01)
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in centred}
    assert rates == {"experts": (1.0, 0.01), "scale": (1.0, 0.0), "gates": (1.0, 0.01), "alphas": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expert_ks": ()}, "expert_ks is empty; the field needs at least one expert"),
        ({"expert_ks": (1, 0)}, r"expert_ks is \(1, 0\); it must be a list \(an integer of at least 1 each\)"),
        ({"expert_ks": (2, 2)}, r"expert_ks is \(2, 2\); its members must be distinct"),
        ({"expert_edim": 0}, "expert_edim is 0; it must be an integer of at least 1"),
        ({"expert_edim": 3}, "expert_edim is 3; a simplex of k = 4 needs as many dimensions"),
        ({"deform_scale": 0.0}, "deform_scale is 0.0; it must be a number above 0"),
        ({"deform_scale": float("nan")}, "deform_scale is nan; it must be a number above 0"),
        ({"alpha_min": -0.1}, "alpha_min is -0.1; it must be a number of at least 0 and below 1"),
        ({"alpha_max": 1.5}, "alpha_max is 1.5; it must be a number above 0 and at most 1"),
        ({"alpha_max": 0.0005}, r"alpha_max is 0.0005; it must lie above alpha_min"),
        ({"initial_alpha": 0.001}, "initial_alpha is 0.001; it must lie between alpha_min"),
        ({"initial_alpha": 0.4}, "initial_alpha is 0.4; it must lie between alpha_min"),
        ({"null_space_fraction": 1.0}, "null_space_fraction is 1.0; it must be a number of at least 0 and below 1"),
        ({"gate": "centered"}, "gate is 'centered'; it must be source or centred"),
        ({"features": "linear"}, "features is linear; the gate must be centred for any but simplex"),
        (
            {"gate": "centred", "features": "none"},
            "features is 'none'; it must be one of simplex, linear, random",
        ),
        ({"gate": "centred", "validity_gate": True}, "validity_gate is true; a centred gate has no validity"),
        ({"gate": "centred", "alpha_max": 0.35}, r"initial_alpha is 0.5; it must lie between alpha_min \(0.0\)"),
        ({"null_space_fraction": -0.1}, "null_space_fraction is -0.1; it must be a number of at least 0 and below 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        FieldModulator(STREAM, **arguments)
