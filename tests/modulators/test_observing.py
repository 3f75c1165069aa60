"""What a modulator says of itself: figures of one pass and of its weights, and how far each token is moved.

Each figure is computed anew, in float64 and by the formulas of the docstrings, not by the modules' own code.
"""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from modulant.assets import MINI
from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream, attach, load_t5, stream_of
from modulators.base import relative_push, token_mean

STREAM = ResidualStream(32, 3, 15_000)
KINDS: dict[str, Any] = {
    "lerp": lambda stream: LerpModulator(stream, initial_alpha=0.2),
    "source": lambda stream: FieldModulator(stream, initial_alpha=0.2),
    "scattered": lambda stream: FieldModulator(stream, null_space_position="scattered", validity_gate=False),
    **{
        name: lambda stream, name=name: FieldModulator(stream, gate="centred", features=name)
        for name in ("simplex", "linear", "random", "constant")
    },
}
FIELDS = [kind for kind in KINDS if kind != "lerp"]


def moved_off(modulator: Modulator) -> Modulator:
    """Every parameter off its start, so that a centred gate is not the identity."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in modulator.parameters():
            if parameter.ndim != 2 or len(parameter) < STREAM.vocab_size:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return modulator


def some_stream() -> tuple[Tensor, Tensor, Tensor]:
    """A stream, its token ids, and what of it is no padding."""
    generator = torch.Generator().manual_seed(1)
    h = 3 * torch.randn(2, 7, 32, generator=generator)
    real = torch.ones(2, 7, dtype=torch.bool)
    real[1, 4:] = False
    return h, torch.randint(0, 15_000, (2, 7), generator=generator), real


def floats(figures: dict[str, Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in figures.items()}


def squared_volume(vertices: Tensor) -> Tensor:
    """Cayley–Menger, (N, k + 1, dim) → (N,)."""
    n, count, _ = vertices.shape
    k = count - 1
    bordered = torch.ones(n, k + 2, k + 2, dtype=torch.float64)
    bordered[:, 0, 0] = 0
    bordered[:, 1:, 1:] = torch.cdist(vertices, vertices).square()
    return (-1) ** (k + 1) / (2**k * math.factorial(k) ** 2) * torch.linalg.det(bordered)


def by_hand(field: FieldModulator, h: Tensor, real: Tensor, layer: int) -> dict[str, float]:
    """The field's figures for the real tokens."""
    state = {name: value.double() for name, value in field.state_dict().items()}
    rows = h.double()[real]
    a = rows[:, field.active_dims]
    centred = "gate" in field.init_args
    scale = float(state.get("deform_scale", torch.tensor(field.init_args["deform_scale"])))
    found = {}
    factors = torch.ones_like(a)
    for e, k in enumerate(field.ks):
        at, alpha = f"field/layer_{layer:02d}_k{k}", field.alphas.double()[layer, e].detach()
        weight, bias = state[f"gate_projs.k{k}.weight"], state[f"gate_projs.k{k}.bias"]
        x = torch.ones(len(a), weight.shape[1], dtype=torch.float64)
        if field.features != "constant":
            expert = field.experts[f"k{k}"]
            displaced = scale * (a @ state[f"experts.k{k}.to_deform.weight"].T + state[f"experts.k{k}.to_deform.bias"])
            found[f"{at}/deformation"] = displaced.norm(dim=1).mean()
            vertices = expert.template.double() + displaced.view(len(a), k + 1, -1)
            if field.features == "simplex":
                edges = [(vertices[:, i] - vertices[:, j]).square().sum(1) for i, j in combinations(range(k + 1), 2)]
                volumes = squared_volume(vertices)
                shape = torch.stack([*edges, volumes], 1)
                found[f"{at}/volume"] = volumes.mean()
                found[f"{at}/volume_cv"] = volumes.std(correction=0) / volumes.mean()
                regular = (k + 1) / (2**k * math.factorial(k) ** 2)
                found[f"{at}/degenerate"] = (volumes < 1e-6 * regular).double().mean()
            else:
                shape = vertices.flatten(1) @ expert.readout.double().T
            x = nn.functional.layer_norm(
                shape, (shape.shape[1],), state[f"experts.k{k}.norm.weight"], state[f"experts.k{k}.norm.bias"]
            )
        gate = (x @ weight.T + bias).tanh() if centred else (x @ weight.T + bias).sigmoid()
        found[f"{at}/gate"], found[f"{at}/gate_sd"] = gate.mean(), gate.std(correction=0)
        factor = 1 + alpha * gate if centred else 1 - alpha + alpha * gate
        if field.validity_gate:
            head = state[f"experts.k{k}.validity_proj.weight"], state[f"experts.k{k}.validity_proj.bias"]
            validity = (x @ head[0].T + head[1]).sigmoid()
            found[f"{at}/validity"], found[f"{at}/validity_sd"] = validity.mean(), validity.std(correction=0)
            factor = 1 - alpha + alpha * gate * validity
        factors = factors * factor
    after = rows.clone()
    after[:, field.active_dims] = a * factors
    found[f"field/layer_{layer:02d}/push"] = ((after - rows).norm(dim=1) / rows.norm(dim=1)).mean()
    return {key: float(value) for key, value in found.items()}


@pytest.mark.parametrize("kind", FIELDS)
def test_the_fields_figures_are_those_by_hand(kind: str) -> None:
    field, (h, _, real) = moved_off(KINDS[kind](STREAM)), some_stream()
    seen = field.observe(h, field(h, 2), 2, None, real)
    expected = by_hand(field, h, real, 2)
    assert seen.keys() == expected.keys()
    # The features of an edge are one number twice: their LayerNorm is rounding, times 1 / sqrt(1e-5).
    assert floats(seen) == pytest.approx(expected, rel=2e-3, abs=2e-5)
    assert not any(value.requires_grad for value in seen.values())
    context = field.prepare().context
    assert floats(field.observe(h, field(h, 2), 2, context, real)) == floats(seen)


def test_lerps_push_is_alpha_times_the_distance_to_its_point() -> None:
    lerp, (h, ids, real) = KINDS["lerp"](STREAM), some_stream()
    (key, push), *others = lerp.observe(h, lerp(h, 1, ids), 1, None, real).items()
    assert (key, others) == ("lerp/layer_01/push", [])
    g, w, alpha = lerp.geometric_embed.weight.double(), lerp.proj.weight.double(), lerp.alphas.double()[1]
    expected = (alpha * (g[ids] @ w.T - h.double())).norm(dim=-1) / h.double().norm(dim=-1)
    assert push.item() == pytest.approx(expected[real].mean().item(), rel=1e-5)


def test_degenerate_simplices_are_counted() -> None:
    """A map that makes the four vertices of token 0 one point, and leaves those of token 1 as they are."""
    field = FieldModulator(ResidualStream(4, 1, 10), expert_ks=(3,), deform_scale=1.0, null_space_fraction=0.0)
    expert = field.experts["k3"]
    with torch.no_grad():
        expert.to_deform.weight.zero_()
        expert.to_deform.bias.zero_()
        expert.to_deform.weight[:, 0] = -expert.template.flatten()
    h = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]])
    seen = field.observe(h, field(h, 0), 0)
    assert float(seen["field/layer_00_k3/degenerate"]) == 0.5
    assert float(seen["field/layer_00_k3/volume"]) == pytest.approx(0.5 * 4 / (8 * 36), rel=1e-5)
    assert float(seen["field/layer_00_k3/volume_cv"]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_at_alpha_0_nothing_is_pushed(kind: str) -> None:
    modulator, (h, ids, _) = moved_off(KINDS[kind](STREAM)), some_stream()
    pushes = [modulator.observe(h, modulator(h, 0, ids, alpha_scale=scale), 0) for scale in (0.0, 1.0)]
    key = f"{modulator.short_name}/layer_00/push"
    assert float(pushes[0][key]) == 0 < float(pushes[1][key])


def test_a_push_of_nothing_is_zero_and_padding_does_not_count() -> None:
    h, _, real = some_stream()
    h[~real] = math.nan
    assert float(token_mean(relative_push(h, 0.75 * h), real)) == pytest.approx(0.25)
    zeros = torch.zeros(1, 2, 32, dtype=torch.bfloat16)
    assert relative_push(zeros, zeros).tolist() == [[0.0, 0.0]]


def test_health_report_of_a_field() -> None:
    field = moved_off(FieldModulator(STREAM, gate="centred"))
    with torch.no_grad():
        field.gate_projs["k4"].bias[:6] = 3.0  # of 24
        field.gate_projs["k4"].bias[6:] = -2.0
    report, scale = field.health_report(), field.deform_scale.item()
    assert report["field/scale"] == pytest.approx(scale)
    assert report["field/k2/deformation"] == pytest.approx(
        scale * field.experts["k2"].to_deform.weight.double().square().sum().sqrt().item()
    )
    assert report["field/k1/gate_weight"] == pytest.approx(field.gate_projs["k1"].weight.norm().item(), rel=1e-6)
    assert report["field/k4/gate_saturated"] == 0.25
    assert report["alpha/layer_02_k4"] == pytest.approx(field.alphas[2, 2].item(), abs=1e-7)
    assert len(report) == 9 + 1 + 3 * 3
    constant = KINDS["constant"](STREAM).health_report()
    assert not any("deformation" in key or "scale" in key for key in constant)
    source = KINDS["source"](STREAM).health_report()
    assert (source["field/scale"], source["field/k1/gate_saturated"]) == (0.05, 0.0)


def test_health_report_of_lerp() -> None:
    lerp = KINDS["lerp"](STREAM)
    with torch.no_grad():
        lerp.geometric_embed.weight[:5_000] = 0
        lerp.geometric_embed.weight[5_000:] *= torch.tensor([1.0, 3.0]).repeat(5_000)[:, None]
    report, rows = lerp.health_report(), lerp.geometric_embed.weight[5_000:].double()
    projected = (rows @ lerp.proj.weight.double().T).norm(dim=1)
    assert report == pytest.approx(
        {f"alpha/layer_0{layer}": 0.2 for layer in range(3)}
        | {"lerp/points/zero": 1 / 3, "lerp/points/norm": 2.0, "lerp/points/norm_sd": 1.0}
        | {"lerp/points/projected": projected.mean().item()}
        | {"lerp/points/projected_sd": projected.std(correction=0).item()},
        rel=1e-5,
    )
    assert lerp.fuse().health_report() == report
    lerp.geometric_embed.weight.data.zero_()  # geometry: none
    assert lerp.health_report()["lerp/points/zero"] == 1.0


# Attached


@pytest.fixture(params=list(KINDS))
def attached(request: pytest.FixtureRequest, backbone: str) -> Any:
    model, _ = load_t5(backbone)
    return model, attach(model, moved_off(KINDS[request.param](stream_of(model.config))), layers=[0, 2])


def test_observing_sees_the_pass_and_changes_nothing(attached: Any, tokens: dict[str, Tensor]) -> None:
    model, handle = attached
    before: dict[int, Tensor] = {}
    results = []
    for observed in (False, True):
        handle.modulator.zero_grad()
        if observed:
            with handle.observed() as seen:
                loss = model(**tokens).loss
        else:
            loss = model(**tokens).loss
        loss.backward()
        results.append([loss, *(p.grad for p in handle.modulator.parameters() if p.requires_grad)])
    assert all(torch.equal(plain, observed) for plain, observed in zip(*results, strict=True))
    # The stream that block 2's modulator reads is what block 1 wrote.
    hook = model.encoder.block[1].register_forward_hook(lambda _, args, out: before.update({2: out[0].detach()}))
    model.encoder(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    hook.remove()
    after = handle.modulator(before[2], 2, tokens["input_ids"])
    alone = handle.modulator.observe(before[2], after, 2, None, tokens["attention_mask"].bool())
    own = {key: value for key, value in seen.items() if "/layer_02" in key}
    assert floats(own) == pytest.approx(floats(alone), rel=1e-5)
    assert len(seen) == 2 * len(own)


def test_outside_observed_nothing_is_observed(
    attached: Any, tokens: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, handle = attached
    with handle.observed() as seen, handle.disabled():
        model(**tokens)
    assert seen == {}
    monkeypatch.setattr(Modulator, "observe", lambda *_: pytest.fail("observed"))
    model(**tokens)


@pytest.mark.parametrize("mask", ["none", "two", "boolean", "additive"])
def test_padding_is_known_from_any_mask(backbone: str, tokens: dict[str, Tensor], mask: str) -> None:
    model, _ = load_t5(backbone)
    handle = attach(model, KINDS["lerp"](stream_of(model.config)), layers=[0])
    real = tokens["attention_mask"].bool()
    additive = torch.where(real, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    masks = {"none": None, "two": tokens["attention_mask"], "boolean": real[:, None, None], "additive": additive}
    with handle.observed() as seen:
        model.encoder(tokens["input_ids"], masks[mask])  # by position
    h = model.shared(tokens["input_ids"])
    push = relative_push(h, handle.modulator(h, 0, tokens["input_ids"])).detach()
    expected = push.mean() if mask == "none" else push[real].mean()
    assert float(seen["lerp/layer_00/push"]) == pytest.approx(expected.item(), rel=1e-5)


def test_inspection_is_what_hooks_see(attached: Any, tokens: dict[str, Tensor]) -> None:
    model, handle = attached
    ids = tokens["input_ids"][1, :51]
    found = handle.inspect(ids)
    read: dict[int, Tensor] = {}
    for i, block in enumerate(model.encoder.block):  # after the modulator's own hooks
        block.register_forward_pre_hook(lambda _, args, i=i: read.update({i: args[0][0].detach()}))
    modulated = model.encoder(ids[None]).last_hidden_state[0]
    after = dict(read)
    handle.remove()
    base = model.encoder(ids[None]).last_hidden_state[0]
    before = {0: read[0]}
    attach(model, handle.modulator, layers=[0])
    model.encoder(ids[None])  # what block 2 reads is now unmodulated there alone
    before[2] = read[2]
    assert (found.layers, found.tokens[:2]) == ([0, 2], [str(int(ids[0])), str(int(ids[1]))])
    for i, layer in enumerate(found.layers):
        h = before[layer].double()
        expected = (after[layer].double() - h).norm(dim=1) / h.norm(dim=1)
        torch.testing.assert_close(found.moved[:, i].double(), expected, rtol=1e-4, atol=1e-6)
    cosine = nn.functional.cosine_similarity(modulated.double(), base.double(), dim=-1)
    torch.testing.assert_close(found.drift.double(), (1 - cosine).detach(), rtol=1e-4, atol=1e-6)
    assert found.moved.min() > 0 < found.drift.max()


def test_inspecting_follows_the_scale_and_leaves_the_model_alone(attached: Any) -> None:
    model, handle = attached
    model.train()  # with dropout
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    full = handle.inspect("a small dog", tokenizer)
    assert all(module.training for module in model.modules())
    assert full.tokens == [*tokenizer.tokenize("a small dog"), tokenizer.eos_token]
    again = handle.inspect(tokenizer("a small dog").input_ids, tokenizer)
    assert torch.equal(full.moved, again.moved)
    assert full.as_dict() == again.as_dict()
    with handle.scaled(0.0):
        assert handle.inspect("a small dog", tokenizer).moved.abs().max() == 0
    with handle.disabled():
        off = handle.inspect("a small dog", tokenizer)
    handle.remove()
    for found in (off, handle.inspect("a small dog", tokenizer)):
        assert found.moved.abs().max() == 0
        assert found.drift.abs().max() < 1e-12


def test_what_cannot_be_inspected(backbone: str) -> None:
    model, _ = load_t5(backbone)
    handle = attach(model, KINDS["source"](stream_of(model.config)))
    with pytest.raises(ValueError, match=r"^inspect: a text needs its tokenizer; give one, or token ids$"):
        handle.inspect("a small dog")
    with pytest.raises(ValueError, match=r"^inspect: there is no token$"):
        handle.inspect([])
