"""ModulatedT5: what trains, what does not, what is saved, and that its figures are what they say."""

import math
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modulant.backbones.t5 import load_backbone
from modulators import (
    FieldModulator,
    LerpModulator,
    ModulatedT5,
    Modulator,
    ResidualStream,
    load_modulated,
    save_modulator,
)
from modulators.arguments import check_precision

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")

SMALL_LERP = partial(LerpModulator, n_geometric_dims=4)


def loader(tokens: dict[str, Tensor], batches: int = 3) -> Any:
    made = [{key: value.roll(i, 0) for key, value in tokens.items()} for i in range(batches)]
    return DataLoader(made, batch_size=None)


def trainer(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": folder,
            **arguments,
        },
        callbacks=list(callbacks),
    )


def built(module: ModulatedT5, loud: bool = False) -> ModulatedT5:
    """With its backbone; `loud`: with a modulator that says something."""
    module.configure_model()
    if loud:
        with torch.no_grad():
            module.modulator.alpha_logits.add_(4)
    return module


class LooksOn(pl.Callback):
    """Checks the backbone at every moment of a fit."""

    def __init__(self) -> None:
        self.looks = 0

    def _look(self, module: Any) -> None:
        self.looks += 1
        assert not any(part.training for part in module.model.modules()), "the backbone is in eval mode"
        assert all(p.grad is None and not p.requires_grad for p in module.model.parameters())

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        self.before = {name: value.clone() for name, value in pl_module.model.state_dict().items()}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        assert pl_module.modulator.training
        for name, parameter in pl_module.modulator.named_parameters():
            assert parameter.grad is not None, name

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self._look(pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self._look(pl_module)
        assert not pl_module.modulator.training

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        assert all(torch.equal(value, self.before[name]) for name, value in pl_module.model.state_dict().items())


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_only_the_modulator_trains(
    backbones: dict[str, str], variant: str, modulator: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    module, look = ModulatedT5(modulator, backbone=backbones[variant], lr=0.01), LooksOn()
    before = {name: value.clone() for name, value in module.modulator.state_dict().items()}
    trainer(tmp_path, look).fit(module, loader(tokens), loader(tokens, 1))
    assert look.looks == 2 + 2 * (3 + 3 + 1) + 1  # start and end, per epoch steps and validation, the sanity check
    for name, parameter in module.modulator.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_a_checkpoint_holds_the_modulator_alone(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.05)
    fit = trainer(tmp_path)
    fit.fit(module, loader(tokens), loader(tokens))
    fit.save_checkpoint(tmp_path / "run.ckpt", weights_only=False)
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    names = {name for name, _ in module.modulator.named_parameters()}
    assert checkpoint["state_dict"].keys() == {f"modulator.{name}" for name in names}
    n = sum(p.numel() for p in module.modulator.parameters())
    assert sum(value.numel() for value in checkpoint["state_dict"].values()) == n
    # And nowhere else is a tensor as large as the backbone's: weights, two moments, and little more.
    assert (tmp_path / "run.ckpt").stat().st_size < 3 * 4 * n + 60_000

    again = ModulatedT5(FieldModulator, backbone=backbone)
    figures = trainer(tmp_path).validate(again, loader(tokens), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    live = trainer(tmp_path).validate(module, loader(tokens), verbose=False)
    assert figures == live


def test_a_state_dict_goes_where_torch_wants_it(backbone: str) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    outer = nn.ModuleDict({"inner": module})
    assert outer.state_dict().keys() == {f"inner.{name}" for name in module.state_dict()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("modulator.alpha_logits"), r"missing \['modulator.alpha_logits'\], not wanted none"),
        (lambda state: state.update({"modulator.x": torch.zeros(1)}), r"missing none, not wanted \['modulator.x'\]"),
        (
            lambda state: state.update({"modulator.alpha_logits": torch.zeros(3, 2)}),
            r"of another shape \['modulator.alpha_logits'\]",
        ),
        (lambda state: state.clear(), "missing"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_loading_asserts_the_exact_keys(backbone: str, change: Any, message: str, strict: bool) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    state = module.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    change(state)
    with pytest.raises(ValueError, match=message) as error:
        module.load_state_dict(state, strict=strict)
    assert "\n" not in str(error.value)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_a_state_dict_of_another_backbone(backbone: str) -> None:
    """Says so, with both shapes, and lists no more keys than tell."""
    state = ModulatedT5(FieldModulator, backbone="mini").state_dict()
    with pytest.raises(ValueError, match="of another modulator or backbone") as caught:
        ModulatedT5(FieldModulator, backbone=backbone).load_state_dict(state)
    line = str(caught.value)
    assert "(the first is 6 × 3 in it and 3 × 3 here)" in line
    assert f"model.backbone is {backbone}, of width 32 and 3 layers" in line
    assert "none" not in line
    assert "'modulator.experts.k2.to_deform.weight'] and 7 more" in line


def test_a_checkpoint_of_another_modulator(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(ModulatedT5(FieldModulator, backbone=backbone), loader(tokens, 1), loader(tokens, 1))
    fit.save_checkpoint(tmp_path / "run.ckpt")
    other = ModulatedT5(SMALL_LERP, backbone=backbone)
    with pytest.raises(ValueError, match="this checkpoint is of another modulator"):
        trainer(tmp_path).validate(other, loader(tokens, 1), ckpt_path=tmp_path / "run.ckpt", weights_only=True)


class Groups(pl.Callback):
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        self.kind = type(optimizer)
        self.groups = {
            group["name"]: (group["lr"], group["weight_decay"], {id(p) for p in group["params"]})
            for group in optimizer.param_groups
        }


@pytest.mark.parametrize(
    ("modulator", "expected"),
    [
        (FieldModulator, {"experts": (1e-3, 0.01), "gates": (1e-2, 0.01), "alphas": (5e-3, 0.0)}),
        (SMALL_LERP, {"geometry": (1e-2, 0.01), "alphas": (1e-2, 0.0)}),
    ],
)
def test_parameter_groups_reach_the_optimizer(
    backbone: str, modulator: Any, expected: dict[str, tuple[float, float]], tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    module, seen = ModulatedT5(modulator, backbone=backbone, lr=1e-2, weight_decay=0.01), Groups()
    trainer(tmp_path, seen, max_epochs=1).fit(module, loader(tokens, 1), loader(tokens, 1))
    assert seen.kind is torch.optim.AdamW
    assert {name: pytest.approx(group[:2]) for name, group in seen.groups.items()} == expected
    parameters = [id(p) for p in module.modulator.parameters()]
    assert sorted(i for _, _, ids in seen.groups.values() for i in ids) == sorted(parameters)
    assert seen.groups["alphas"][2] == {id(module.modulator.alpha_logits)}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_follows_its_schedule(
    backbone: str, tokens: dict[str, Tensor], tmp_path: Path, schedule: Literal["cosine", "constant"]
) -> None:
    class Rates(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[-1]["lr"])

    rates = Rates()
    module = ModulatedT5(SMALL_LERP, backbone=backbone, lr=1.0, schedule=schedule)
    trainer(tmp_path, rates).fit(module, loader(tokens), loader(tokens))
    falling = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    expected = falling if schedule == "cosine" else [1.0] * 6
    assert rates.seen == pytest.approx(expected, abs=1e-12)


def test_nothing_to_train_or_no_end(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    class Fixed(LerpModulator):
        def __init__(self, stream: ResidualStream) -> None:
            super().__init__(stream, n_geometric_dims=4, learnable_alpha=False)
            self.requires_grad_(False)

    with pytest.raises(ValueError, match="no trainable parameter; use validate instead of fit"):
        trainer(tmp_path).fit(ModulatedT5(Fixed, backbone=backbone), loader(tokens, 1), loader(tokens, 1))
    for key in ("limit_train_batches", "max_steps"):
        with pytest.raises(ValueError, match=r"trainer: max_steps or limit_train_batches is 0, so that nothing"):
            trainer(tmp_path, **{key: 0}).fit(
                ModulatedT5(SMALL_LERP, backbone=backbone), loader(tokens, 1), loader(tokens, 1)
            )
    endless = trainer(tmp_path, max_epochs=-1)
    with pytest.raises(ValueError, match="falls as a cosine over inf steps; set max_epochs or max_steps"):
        endless.fit(ModulatedT5(SMALL_LERP, backbone=backbone), loader(tokens, 1), loader(tokens, 1))


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
def test_loss_from_shifted_targets_in_float64(
    backbones: dict[str, str], variant: str, tokens: dict[str, Tensor]
) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbones[variant]), loud=True)
    output = module(tokens)
    labels = tokens["labels"]
    # The decoder sees the start token and each target but the last.
    shifted = torch.zeros_like(labels)
    shifted[:, 1:] = labels[:, :-1].clamp(min=0)
    hidden = module.encode(tokens["input_ids"], tokens["attention_mask"])
    decoded = module.model.decoder(
        input_ids=shifted,
        encoder_hidden_states=hidden,
        encoder_attention_mask=tokens["attention_mask"],
        use_cache=False,
    ).last_hidden_state.double()
    if variant == "v1_0":
        decoded = decoded * 32**-0.5  # tied embeddings
    scores = decoded @ module.model.lm_head.weight.double().T
    losses = [
        torch.logsumexp(scores[row, place], 0) - scores[row, place, labels[row, place]]
        for row in range(4)
        for place in range(5)
        if labels[row, place] != -100
    ]
    assert len(losses) == 12
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    # Unshifted targets, the source's, give another loss.
    unshifted = module.model(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        decoder_input_ids=labels.clamp(min=0),
        labels=labels,
    ).loss
    assert abs(unshifted.item() - output.loss.item()) > 1e-3


def slow_answers(module: ModulatedT5, tokens: dict[str, Tensor], row: int, steps: int) -> list[int]:
    """Greedy decoding of one source without padding and without a cache."""
    length = int(tokens["attention_mask"][row].sum())
    ids = tokens["input_ids"][row : row + 1, :length]
    answer = [0]
    for _ in range(steps):
        logits = module.model(input_ids=ids, decoder_input_ids=torch.tensor([answer]), use_cache=False).logits
        answer.append(int(logits[0, -1].argmax()))
        if answer[-1] == 1:
            break
    return answer[1:]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_validation_figures(
    backbones: dict[str, str], tokens: dict[str, Tensor], tmp_path: Path, checkpointing: bool
) -> None:
    # Of v1.1, because a random model with tied embeddings answers with its last token again and again.
    module = built(
        ModulatedT5(FieldModulator, backbone=backbones["v1_1"], gradient_checkpointing=checkpointing), loud=True
    ).eval()
    with torch.no_grad():
        answers = [slow_answers(module, tokens, row, 5) for row in range(4)]
        assert all(len(set(answer)) > 2 for answer in answers)
        # Two targets are what it answers, one is longer, one differs in its last token.
        labels = torch.full((4, 5), -100)
        for row, answer in enumerate(answers):
            labels[row, : len(answer)] = torch.tensor(answer)
        labels[2, int((labels[2] != -100).sum()) - 1] = 77
        labels[3, :2] = torch.tensor([78, 1])
        batch = {**tokens, "labels": labels}
        right = [slow_answers(module, batch, row, 5)[: len(t)] == t for row, t in enumerate(map(real, labels))]
        logits = module(batch).logits
    assert right == [True, True, False, False]
    found = trainer(tmp_path).validate(module, loader(batch, 1), verbose=False)[0]
    assert found["val/exact_match"] == 0.5
    targets = labels != -100
    assert found["val/token_accuracy"] == pytest.approx((logits.argmax(-1) == labels)[targets].double().mean().item())
    loss = nn.functional.cross_entropy(logits[targets].double(), labels[targets])
    assert found["val/loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert trainer(tmp_path).test(module, loader(batch, 1), verbose=False)[0] == {
        f"test/{name.removeprefix('val/')}": value for name, value in found.items()
    }


def real(labels: Tensor) -> list[int]:
    return [token for token in labels.tolist() if token != -100]


def test_some_layers(backbone: str, tokens: dict[str, Tensor]) -> None:
    modulated: list[int] = []

    class Telling(FieldModulator):
        def forward(self, residual: Tensor, layer: int, token_ids: Tensor | None = None) -> Tensor:
            modulated.append(layer)
            return super().forward(residual, layer, token_ids)

    module = built(ModulatedT5(Telling, backbone=backbone, layers=[2, 0]))
    assert module.layers == [0, 2]
    module.encode(tokens["input_ids"], tokens["attention_mask"])
    assert modulated == [0, 2]
    module(tokens).loss.backward()
    gradient = module.modulator.alpha_logits.grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [True, False, True]


def test_static_and_base_and_random(backbone: str, tokens: dict[str, Tensor]) -> None:
    module, base = built(ModulatedT5(FieldModulator, backbone=backbone), loud=True), load_backbone(backbone)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert torch.equal(module.static_embed(ids), base.shared(ids))
    original = base.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert module.handle is not None
    with module.handle.disabled():
        assert torch.equal(module.encode(ids, mask), original)
    assert not torch.allclose(module.encode(ids, mask), original, atol=1e-3)
    assert module.random_encoder()(ids, mask).shape == original.shape


class BlockForwards:
    """Counts how often the forward of a model's blocks runs."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        for block in [*model.encoder.block, *model.decoder.block]:
            inner = block.layer[0]  # the hook of a checkpointed block itself runs once; what is in it runs again
            inner.register_forward_hook(self._tick)

    def _tick(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_gradient_checkpointing(backbone: str, modulator: Any, tokens: dict[str, Tensor]) -> None:
    gradients, forwards = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        module = built(ModulatedT5(modulator, backbone=backbone, gradient_checkpointing=checkpointing), loud=True)
        counter = BlockForwards(module.model)
        module(tokens).loss.backward()
        gradients.append({name: p.grad for name, p in module.modulator.named_parameters()})
        forwards.append(counter.count)
        dropouts = [part for part in module.model.modules() if isinstance(part, nn.Dropout)]
        assert dropouts
        assert not any(part.training for part in dropouts)
    assert forwards == [5, 10], "each block runs once more, in the backward pass"
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0, msg=name)


def test_gradient_checkpointing_is_off_where_answers_are_made(backbone: str, tmp_path: Path) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbone, gradient_checkpointing=True))
    blocks = [*module.model.encoder.block, *module.model.decoder.block]
    assert all(block.training for block in blocks)
    module.eval()
    assert not any(block.training for block in blocks)
    module.train()
    assert all(block.training for block in blocks)


def test_a_fit_with_gradient_checkpointing_is_the_same_fit(
    backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    ends = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02, gradient_checkpointing=checkpointing)
        fit = trainer(tmp_path)
        fit.fit(module, loader(tokens), loader(tokens))
        ends.append((module.state_dict(), fit.callback_metrics))
    for name, value in ends[0][0].items():
        assert torch.equal(ends[1][0][name], value), name
    assert ends[0][1] == ends[1][1]


def test_bf16(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02, backbone_dtype="bfloat16")
    fit = trainer(tmp_path)
    fit.fit(module, loader(tokens), loader(tokens))
    assert {p.dtype for p in module.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in module.modulator.parameters()} == {torch.float32}
    assert module.encode(tokens["input_ids"], tokens["attention_mask"]).dtype == torch.bfloat16
    exact = built(ModulatedT5(FieldModulator, backbone=backbone))
    exact.load_state_dict(module.state_dict())
    low, high = module(tokens).loss.item(), exact(tokens).loss.item()
    assert low == pytest.approx(high, rel=0.02)  # 8 bits of mantissa


class LearnsInFp32(pl.Callback):
    """Looks at what learns, in every step: before the optimizer, and at what it keeps."""

    def __init__(self) -> None:
        self.streams: list[tuple[torch.dtype, torch.dtype]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.modulator.register_forward_hook(lambda _, args, out: self.streams.append((args[0].dtype, out.dtype)))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        assert {p.dtype for p in pl_module.modulator.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in pl_module.modulator.parameters()} == {torch.float32}

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        state = trainer.optimizers[0].state
        kept = [state[p][name] for p in pl_module.modulator.parameters() for name in ("exp_avg", "exp_avg_sq")]
        assert {tensor.dtype for tensor in kept} == {torch.float32}
        assert any(tensor.any() for tensor in kept)


@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_bf16_as_its_overlay_has_it(backbone: str, modulator: Any, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    """Weights and products in bf16; modulator, gradients and AdamW's state in fp32, and the loss near fp32's."""
    overlay = yaml.safe_load((Path(__file__).parents[3] / "configs" / "bf16.yaml").read_text())
    losses = []
    for arguments, precision in (({}, "32-true"), (overlay["model"]["init_args"], overlay["trainer"]["precision"])):
        torch.manual_seed(0)
        module = ModulatedT5(modulator, backbone=backbone, lr=0.02, **arguments)
        looks = LearnsInFp32()
        fit = trainer(tmp_path, looks, precision=precision)
        fit.fit(module, loader(tokens), loader(tokens))
        losses.append(fit.callback_metrics["train/loss"].item())
        low = torch.bfloat16 if arguments else torch.float32
        assert set(looks.streams) == {(low, low)}
    assert {p.dtype for p in module.model.parameters()} == {torch.bfloat16}
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # 8 bits of mantissa


NAMES = [name for kind in (_PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS) for name in get_args(kind)]
KEPT = ["32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16"]


@pytest.mark.parametrize("precision", KEPT)
@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU", "ignore:.*for historical reasons")
def test_what_learns_stays_in_fp32(precision: Any, backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module, looks = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02), LearnsInFp32()
    before = module.modulator.alphas.detach()
    fit = trainer(tmp_path, looks, precision=precision)
    fit.fit(module, loader(tokens), loader(tokens))
    assert not torch.equal(module.modulator.alphas, before)
    save_modulator(module.modulator, tmp_path / "modulator", backbone, module.layers)
    model, _ = load_modulated(tmp_path / "modulator")
    assert all(torch.equal(model.modulator.state_dict()[k], v) for k, v in module.modulator.state_dict().items())


@pytest.mark.parametrize("precision", sorted({*NAMES, "64"} - {*KEPT}))
@pytest.mark.filterwarnings("ignore:.*is supported for historical reasons")
def test_a_precision_that_casts_it(precision: Any, backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    with pytest.raises((ValueError, ModuleNotFoundError)) as caught:  # Transformer Engine is not installed here
        trainer(tmp_path, precision=precision).fit(module, loader(tokens), loader(tokens))
    assert "transformer" in precision or re.match(r"trainer\.precision is .*--config bf16\.yaml", str(caught.value))
    assert module.model is None, "nothing was loaded"
    with pytest.raises(ValueError, match=rf"^trainer\.precision is {precision}, .*--config bf16\.yaml"):
        check_precision(precision)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be a number above 0"),
        ({"lr": float("nan")}, "lr is nan; it must be"),
        ({"lr": float("inf")}, "lr is inf; it must be"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be a number of at least 0"),
        ({"layers": [3]}, "model.layers: layer 3 does not exist; the encoder has 3 layers, 0 … 2"),
        ({"layers": [0, 0]}, "model.layers is"),
        ({"layers": []}, "model.layers is"),
        ({"modulator": partial(LerpModulator, n_geometric_dims=0)}, "model.modulator: n_geometric_dims is 0"),
        ({"backbone": "./nowhere"}, "model.backbone: no folder"),
    ],
)
def test_bad_arguments_before_any_weight_is_read(backbone: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModulatedT5(**{"modulator": FieldModulator, "backbone": backbone, **arguments})


def test_predictions(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    class Data(pl.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            from modulant.backbones.tokenizers import load_tokenizer

            self.tokenizer = load_tokenizer(backbone)

        def predict_dataloader(self) -> Any:
            inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
            return DataLoader([{**inputs, "prompts": ["a", "b", "c", "d"]}], batch_size=None)

    module = built(ModulatedT5(FieldModulator, backbone=backbone), loud=True)
    (rows,) = trainer(tmp_path).predict(module, datamodule=Data())
    assert [row.prompt for row in rows] == ["a", "b", "c", "d"]
    tokenizer = Data().tokenizer
    for name, disabled in (("original", True), ("modulated", False)):
        model: Any = load_backbone(backbone) if disabled else module.model
        answers = model.generate(
            tokens["input_ids"], attention_mask=tokens["attention_mask"], max_new_tokens=16, do_sample=False
        )
        expected = tokenizer.batch_decode(answers, skip_special_tokens=True)
        assert [getattr(row, name).text for row in rows] == expected


def test_describe(backbone: str) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbone, layers=[1]))
    about = module.describe()
    assert about["frozen_parameters"] == sum(p.numel() for p in load_backbone(backbone).parameters())
    assert about["trainable_parameters"] == sum(p.numel() for p in module.modulator.parameters())
    assert (about["layers"], about["expert_names"], about["n_layers"]) == ([1], ["k1", "k2", "k4"], 3)
    assert isinstance(module.modulator, Modulator)
    assert torch.equal(module.active_dims, torch.arange(24))
