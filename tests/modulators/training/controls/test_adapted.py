"""AdaptedT5: as many parameters as were asked for, where they were asked for; without them, the base model."""

import math
from pathlib import Path
from typing import Any

import jaxtyping
import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from modulant.backbones.t5 import load_backbone, load_config
from modulators import AdaptedT5, FieldModulator, ModulatedT5
from modulators.arguments import Adapter
from modulators.training.controls.targets import Plan, matrices, plan
from tests.modulators.training.fits import loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")

ADAPTERS: tuple[Adapter, ...] = ("lora", "ia3")
ASKED = 1500
MINI: dict[str, list[tuple[int, int]]] = {
    **{kind: [(128, 128)] for kind in "qkvo"},
    "wi": [(128, 512)],
    "wo": [(512, 128)],
}
FIELD, LERP = 9_752, 1_032_198  # trained parameters of the modulators on mini


def built(adapter: Adapter, backbone: str, loud: bool = False, **arguments: Any) -> AdaptedT5:
    """With its backbone; `loud`: with an adapter that says something."""
    module = AdaptedT5(adapter, ASKED, backbone=backbone, **arguments)
    module.configure_model()
    if loud:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in trained(module).values():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def trained(module: AdaptedT5) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def hidden(model: Any, tokens: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**tokens).encoder_last_hidden_state


# How many parameters


@pytest.mark.parametrize(
    ("adapter", "asked", "expected"),
    [
        # r (d_in + d_out) for each matrix, six blocks
        ("lora", FIELD, Plan(("q", "v"), (), 3, 6 * 3 * 2 * 256)),
        ("lora", LERP, Plan(("q", "k", "v", "o", "wi", "wo"), (), 75, 6 * 75 * (4 * 256 + 2 * 640))),
        ("lora", 1, Plan(("q", "v"), (), 1, 6 * 2 * 256)),
        ("lora", 10**9, Plan(("q", "k", "v", "o", "wi", "wo"), (), 128, 6 * 128 * (4 * 256 + 2 * 640))),
        # exact for all three: the largest
        ("lora", 6 * 2304 * 4, Plan(("q", "k", "v", "o", "wi", "wo"), (), 4, 6 * 2304 * 4)),
        # a number for each scaled dimension
        ("ia3", 1, Plan(("k", "v"), (), None, 6 * 2 * 128)),
        ("ia3", 4_500, Plan(("k", "v"), ("wo",), None, 6 * (2 * 128 + 512))),
        ("ia3", 6_000, Plan(("k", "v", "o"), ("q", "wo"), None, 6 * (4 * 128 + 512))),
        ("ia3", FIELD, Plan(("k", "v", "o", "wi"), ("q", "wo"), None, 6 * (4 * 128 + 2 * 512))),
    ],
)
def test_the_nearest_number_of_parameters(adapter: Adapter, asked: int, expected: Plan) -> None:
    assert plan(adapter, MINI, 6, asked) == expected


@pytest.mark.parametrize("asked", [3_000, FIELD, 25_000, 100_000, LERP])
def test_lora_comes_near_any_number(asked: int) -> None:
    smallest = 6 * 2 * 256  # its steps on q and v
    found = plan("lora", MINI, 6, asked).parameters
    assert abs(found - asked) <= max(smallest / 2, 0.02 * asked)


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
def test_shapes_are_those_of_the_backbone(backbones: dict[str, str], variant: str) -> None:
    block = load_backbone(backbones[variant]).encoder.block[1]
    found: dict[str, list[tuple[int, int]]] = {}
    for name, module in block.named_modules():
        if isinstance(module, torch.nn.Linear):
            kind = name.rpartition(".")[2].partition("_")[0]
            found.setdefault(kind, []).append((module.in_features, module.out_features))
    assert matrices(load_config(backbones[variant])) == found


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
@pytest.mark.parametrize("asked", [1, ASKED, 4000, 10**6])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_it_has_what_was_planned_in_its_layers_alone(
    backbones: dict[str, str], variant: str, adapter: Adapter, asked: int
) -> None:
    module = AdaptedT5(adapter, asked, backbone=backbones[variant], layers=[2, 0])
    module.configure_model()
    assert sum(parameter.numel() for parameter in trained(module).values()) == module.plan.parameters
    assert {".".join(name.split(".")[:4]) for name in trained(module)} == {
        "model.encoder.block.0",
        "model.encoder.block.2",
    }
    assert module.describe()["trainable_parameters"] == module.plan.parameters
    base = sum(parameter.numel() for parameter in load_backbone(backbones[variant]).parameters())
    assert module.describe()["frozen_parameters"] == base


def test_a_number_that_is_far_is_said(backbone: str) -> None:
    module = AdaptedT5("ia3", 10**6, backbone=backbone)
    has = module.plan.parameters
    assert module.far == f"model.n_parameters is 1,000,000: the nearest that IA³ has on these layers is {has:,}"
    assert module.describe()["far"] == module.far
    near = AdaptedT5("ia3", has, backbone=backbone)
    assert near.far is None
    assert "far" not in near.describe()


def test_describe(backbone: str) -> None:
    about = built("lora", backbone).describe()
    assert (about["class"], about["adapter"], about["n_parameters"]) == ("AdaptedT5", "lora", ASKED)
    # 3 blocks of q and v, 32 × 32 each, make 384 a rank; with k and o, 768
    assert (about["targets"], about["rank"], about["lora_alpha"]) == (["q", "k", "v", "o"], 2, 2)
    assert built("ia3", backbone).describe()["scaled_inputs"] == ["q", "wo"]


# What it is without


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_base_model_at_the_start_and_when_disabled(
    backbones: dict[str, str], variant: str, adapter: Adapter, tokens: dict[str, Tensor]
) -> None:
    base = hidden(load_backbone(backbones[variant]), tokens)
    assert torch.equal(hidden(built(adapter, backbones[variant]).model, tokens), base)
    module = built(adapter, backbones[variant], loud=True)
    assert module.handle is not None
    assert module.modulator is None
    loud = hidden(module.model, tokens)
    assert not torch.equal(loud, base)
    with module.handle.disabled():
        with module.handle.disabled():
            assert torch.equal(hidden(module.model, tokens), base)
        assert torch.equal(module.encode(tokens["input_ids"], tokens["attention_mask"]), base)
    assert torch.equal(hidden(module.model, tokens), loud)
    assert all(parameter.requires_grad for parameter in trained(module).values())
    assert len(trained(module)) > 0


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_bf16(adapter: Adapter, backbone: str, tokens: dict[str, Tensor]) -> None:
    base = hidden(load_backbone(backbone, torch.bfloat16), tokens)
    module = built(adapter, backbone, backbone_dtype="bfloat16")
    assert torch.equal(hidden(module.model, tokens), base)
    assert {parameter.dtype for parameter in trained(module).values()} == {torch.float32}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_other_layers_read_and_write_what_they_did(adapter: Adapter, backbone: str, tokens: dict[str, Tensor]) -> None:
    def after_blocks(model: Any) -> list[Tensor]:
        with torch.no_grad():
            out = model.encoder(tokens["input_ids"], tokens["attention_mask"], output_hidden_states=True)
        return list(out.hidden_states)

    module = built(adapter, backbone, loud=True, layers=[1])
    same = [
        torch.equal(a, b)
        for a, b in zip(after_blocks(module.model), after_blocks(load_backbone(backbone)), strict=True)
    ]
    assert same == [True, True, False, False]  # embeddings, block 0, block 1, block 2


# What trains


class LooksOn(pl.Callback):
    """Checks the backbone at every step, and keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.before = {name: value.clone() for name, value in pl_module.named_parameters()}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert not any(part.training for part in pl_module.model.encoder.modules())
        for name, parameter in pl_module.named_parameters():
            assert (parameter.grad is not None) == (name in trained(pl_module)), name

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for name, parameter in pl_module.named_parameters():
            assert torch.equal(parameter, self.before[name]) == (not parameter.requires_grad), name


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_fit_trains_the_adapter_alone(
    adapter: Adapter, backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    module, look = AdaptedT5(adapter, ASKED, backbone=backbone, lr=0.02), LooksOn()
    fit = trainer(tmp_path, look, max_epochs=3)
    fit.fit(module, loader(tokens), loader(tokens, 1))
    assert look.losses[-1] < look.losses[0]
    (group,) = fit.optimizers[0].param_groups
    assert (group["name"], group["weight_decay"]) == ("adapter", 0.01)
    assert {id(p) for p in group["params"]} == {id(p) for p in trained(module).values()}
    assert math.isfinite(float(fit.callback_metrics["val/loss"]))


def test_one_step_changes_the_loss(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    """IA³ starts at one, and AdamW's first step moves each number by the rate at most, beside its decay."""
    module = AdaptedT5("ia3", ASKED, backbone=backbone, lr=0.01, weight_decay=0.1)
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(module, loader(tokens), loader(tokens, 1))
    moved = torch.cat([parameter.detach().flatten() for parameter in trained(module).values()]) - (1 - 0.01 * 0.1)
    assert moved.abs().max().item() == pytest.approx(0.01, rel=1e-3)  # where a gradient dwarfs AdamW's eps
    with torch.no_grad():
        after = module(tokens).loss
        assert module.handle is not None
        with module.handle.disabled():
            before = module(tokens).loss
    assert after < before


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_gradient_checkpointing_changes_nothing(adapter: Adapter, backbone: str, tokens: dict[str, Tensor]) -> None:
    gradients = []
    for checkpointing in (False, True):
        module = built(adapter, backbone, loud=True, gradient_checkpointing=checkpointing)
        for name, parameter in trained(module).items():  # LoRA's A is drawn anew for each module
            with torch.no_grad():
                parameter.copy_(gradients[0][0][name] if gradients else parameter)
        state = {name: parameter.detach().clone() for name, parameter in trained(module).items()}
        module.train()
        module(tokens).loss.backward()
        gradients.append((state, {name: parameter.grad for name, parameter in trained(module).items()}))
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradients[1][1][name], gradient, rtol=0, atol=0, msg=name)


def test_the_start_follows_the_global_generator(backbone: str) -> None:
    states = []
    for seed, disturb in ((1, False), (1, True), (2, False)):
        torch.manual_seed(seed)
        module = AdaptedT5("lora", ASKED, backbone=backbone)
        if disturb:  # whatever is drawn between making the module and loading its backbone
            torch.rand(3)
        before = torch.get_rng_state()
        module.configure_model()
        assert torch.equal(torch.get_rng_state(), before)
        states.append(torch.cat([value.flatten() for value in module.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


# What is saved


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_checkpoint_holds_the_adapter_alone(
    adapter: Adapter, backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    from peft import get_peft_model_state_dict

    module = AdaptedT5(adapter, ASKED, backbone=backbone, lr=0.02)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(module, loader(tokens), loader(tokens, 1))
    fit.save_checkpoint(tmp_path / "run.ckpt", weights_only=False)
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == {f"adapter.{name}" for name in get_peft_model_state_dict(module.model)}
    assert sum(value.numel() for value in saved.values()) == module.plan.parameters

    again = AdaptedT5(adapter, ASKED, backbone=backbone)
    trainer(tmp_path).validate(again, loader(tokens, 1), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert torch.equal(hidden(again.model, tokens), hidden(module.model, tokens))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft 0.21 asks for it
def test_peft_reads_what_is_left(adapter: Adapter, backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    from peft import PeftModel

    module = built(adapter, backbone, loud=True, layers=[0, 2])
    module.save_adapter(tmp_path / "adapter")
    model = PeftModel.from_pretrained(load_backbone(backbone), tmp_path / "adapter").eval()
    assert torch.equal(hidden(model, tokens), hidden(module.model, tokens))
    assert not torch.equal(hidden(model, tokens), hidden(load_backbone(backbone), tokens))


def test_loading_asserts_the_exact_keys(backbone: str) -> None:
    module = built("lora", backbone)
    state = module.state_dict()
    first = next(iter(state))
    changes = [
        ({key: value for key, value in state.items() if key != first}, "of another adapter: missing"),
        (state | {"adapter.x": torch.zeros(1)}, "missing none, not wanted .'adapter.x'."),
        (state | {first: torch.zeros(1, 1)}, "of another shape"),
        (ModulatedT5(FieldModulator, backbone=backbone).state_dict(), "not wanted .'modulator"),
        (built("ia3", backbone).state_dict(), "of another adapter"),
    ]
    for wrong, message in changes:
        for strict in (True, False):
            with pytest.raises(ValueError, match=message):
                module.load_state_dict(wrong, strict=strict)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_change_shows_in_the_digest(backbone: str) -> None:
    """Representations are kept as long as this is the same."""
    from callbacks.measures.representations import _digest

    module = built("lora", backbone)
    before = _digest(module)
    assert _digest(module) == before
    with torch.no_grad():
        next(reversed(trained(module).values()))[0, 0] += 1e-6
    assert _digest(module) != before


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapter": "dora"}, "adapter is 'dora'; it must be lora or ia3"),
        ({"n_parameters": 0}, "n_parameters is 0; it must be an integer of at least 1"),
        ({"n_parameters": -5}, "n_parameters is -5; it must be an integer of at least 1"),
        ({"layers": [3]}, "model.layers: layer 3 does not exist; the encoder has 3 layers"),
        ({"lr": 0.0}, "lr is 0.0; it must be a number above 0"),
        ({"backbone": "./nowhere"}, "model.backbone: no folder"),
    ],
)
def test_bad_arguments(backbone: str, arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        AdaptedT5(**{"adapter": "lora", "n_parameters": ASKED, "backbone": backbone, **arguments})


def test_without_peft(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="model: LoRA and IA³ need peft, which is not installed"):
        AdaptedT5("lora", ASKED, backbone=backbone)
