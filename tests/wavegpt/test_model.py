"""The whole model, arm by arm: causality, decoding, masks, initialisation, training."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.wavegpt.arms import ARMS, ATTENTIONS, CONTEXT, V, model_of, small, some_ids
from wavegpt import (
    PRESETS,
    AttentionConfig,
    EmbeddingConfig,
    Observed,
    WaveConfig,
    WaveGPT,
    build_optimizer,
    preset,
    wave_loss,
)  # fmt: skip
from wavegpt.attention.phases import ladder
from wavegpt.config import AnnealConfig


@pytest.fixture(params=ARMS)
def arm(request: pytest.FixtureRequest) -> WaveGPT:
    return model_of(ARMS[request.param])


@torch.inference_mode()
def test_later_tokens_change_no_earlier_logit(arm: WaveGPT) -> None:
    ids = some_ids()
    logits = arm(ids)
    assert logits.shape == (2, 12, V)
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % V
    assert torch.equal(arm(changed)[:, :7], logits[:, :7])
    assert not torch.equal(arm(changed)[:, 7:], logits[:, 7:])


@torch.inference_mode()
def test_cached_decoding_is_the_full_forward_pass(arm: WaveGPT) -> None:
    ids = some_ids()
    logits = arm(ids)
    for split in ((1,) * 12, (5, 4, 1, 1, 1), (12,)):
        cache = arm.new_cache()
        pieces = [arm(piece, cache=cache) for piece in ids.split(split, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits, atol=1e-11, rtol=0)
    torch.testing.assert_close(arm(ids, last=True), logits[:, -1:])


@torch.inference_mode()
def test_segments_do_not_see_each_other(arm: WaveGPT) -> None:
    """Packed documents, and padding on the left of the shorter one of two prompts, which decoding goes on from."""
    ids = some_ids()
    segments = torch.tensor([[5] * 4 + [2] * 3 + [5] * 5, [0] * 4 + [1] * 8])
    cache = arm.new_cache()
    logits = arm(ids, segments=segments, cache=cache)
    for row, parts in ((0, (slice(0, 4), slice(4, 7))), (1, (slice(4, 12),))):
        for part in parts:
            torch.testing.assert_close(logits[row, part], arm(ids[row : row + 1, part])[0], atol=1e-11, rtol=0)
    following = some_ids(2, 3)
    more = arm(following, segments=segments[:, -1:].expand(-1, 3), cache=cache)
    alone = arm(torch.cat([ids[1:, 4:], following[1:]], dim=1))
    torch.testing.assert_close(more[1], alone[0, -3:], atol=1e-11, rtol=0)


def test_the_gradient_of_a_logit_reaches_no_later_embedding() -> None:
    for name in ("wave", "pure_wave_linear", "source/interference", "integrated-sum", "baseline"):
        model = model_of(ARMS[name])
        seen: list[Tensor] = []

        def keep(_module: object, _inputs: object, output: Tensor, seen: list[Tensor] = seen) -> None:
            seen.append(output)

        model.embedding.register_forward_hook(keep)
        logits = model(some_ids())
        (gradient,) = torch.autograd.grad(logits[:, 5].square().sum(), seen[0])
        assert gradient[:, :6].abs().sum(-1).min() > 0
        assert gradient[:, 6:].abs().max() == 0


@torch.inference_mode()
def test_a_window_of_keys_moves_and_a_state_forgets_nothing() -> None:
    """Beyond the context, the last keys are held; one layer alone depends on exactly those tokens."""
    ids = some_ids(1, 40)
    for name, windowed in (("rope", True), ("fixed-softmax", True), ("fixed-energy", True), ("fixed-sum", False)):
        model = model_of(replace(ARMS[name], layers=1))
        cache = model.new_cache(window=CONTEXT)
        steps = [model(piece, cache=cache) for piece in ids.split(1, dim=1)]
        recent = model(ids[:, -CONTEXT:])[:, -1]
        whole = model(ids)[:, -1]
        torch.testing.assert_close(steps[-1][:, -1], recent if windowed else whole, atol=1e-9, rtol=0)
        assert (cache.window is None) is not windowed


@torch.inference_mode()
@pytest.mark.parametrize("name", ATTENTIONS)
def test_which_arms_are_translation_invariant(name: str) -> None:
    """Three tokens that are not seen in front shift all positions; `evolved` phases and √t depend on them."""
    model = model_of(small(WaveConfig(attention=ATTENTIONS[name])))
    ids = some_ids()
    cache = model.new_cache()
    cache.next = torch.tensor([[37]])
    shifted, plain = model(ids, cache=cache), model(ids)
    about = ATTENTIONS[name]
    absolute = about.phase == "evolved" or about.normalise == "sqrt_t" or (
        about.kind == "pure_wave" and about.phase == "fixed" and about.where == "feature"
    )  # fmt: skip
    assert torch.allclose(shifted, plain, atol=1e-9) is not absolute


@torch.inference_mode()
def test_a_bias_of_all_phases_is_a_gauge() -> None:
    for phase in ("fixed", "integrated", "source"):
        model = model_of(small(WaveConfig(attention=AttentionConfig(phase=phase, frequency="free"))))
        before = model(some_ids())
        for block in model.blocks:
            for projection in block.attention.phases:
                projection.bias.add_(torch.linspace(0, 9, projection.bias.numel()))
            if phase == "source":
                block.attention.frequency[0].bias.add_(1.5)
        torch.testing.assert_close(model(some_ids()), before, atol=1e-10, rtol=0)


@torch.inference_mode()
def test_the_initial_loss_is_that_of_a_uniform_guess() -> None:
    ids = torch.randint(64, (4, 33))
    for name in PRESETS:
        config = replace(preset(name), vocab_size=64, d_model=64, layers=2, heads=4, context=32)
        torch.manual_seed(0)
        logits = WaveGPT(config, torch.arange(64)).eval()(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert float(loss) == pytest.approx(math.log(64), abs=0.1), name


@torch.inference_mode()
def test_outputs_of_attention_keep_their_size_along_a_row_unless_weights_are_energies() -> None:
    x = torch.randn(1, 64, 32, dtype=torch.float64)
    ids = torch.zeros(1, 64, dtype=torch.long)
    from wavegpt.attention.places import places_of

    for normalise, within in (("softmax", True), ("sum", True), ("energy", False)):
        about = AttentionConfig(normalise=normalise)
        config = WaveConfig(vocab_size=V, d_model=32, heads=2, layers=1, attention=about)
        torch.manual_seed(0)
        attention = WaveGPT(config, torch.arange(V)).double().blocks[0].attention
        values = torch.ones_like(x)  # the size that weights give, not what averaging takes from noise
        attention.value.weight.copy_(torch.eye(32))
        attention.out.weight.copy_(torch.eye(32))
        y = attention(x * 0.1 + values, places_of(ids, None, None)).norm(dim=-1)[0]
        assert (0.5 < float(y[-1] / y[0]) < 2) is within


def test_locality_gives_rope_the_initial_logits_of_interference() -> None:
    models = []
    for about in (AttentionConfig(kind="rope", locality=True), AttentionConfig(terms="cross")):
        torch.manual_seed(0)
        config = small(WaveConfig(attention=about, embedding=EmbeddingConfig(kind="table")))
        model = WaveGPT(config).double()
        with torch.no_grad():
            for block in model.blocks:
                for name, p in block.attention.named_parameters():
                    if "weight" in name and "value" not in name and "out" not in name:
                        p.zero_()
                block.attention.value.weight.copy_(torch.eye(16))
                block.attention.out.weight.copy_(torch.eye(16))
        models.append(model)
    models[1].embedding.load_state_dict(models[0].embedding.state_dict())
    models[1].head.load_state_dict(models[0].head.state_dict())
    for one, other in zip(models[0].blocks, models[1].blocks, strict=True):
        other.mlp.load_state_dict(one.mlp.state_dict())
    torch.testing.assert_close(models[1](some_ids()), models[0](some_ids()), atol=1e-6, rtol=0)


def test_parameters_of_interference_are_those_of_rope_and_its_biases() -> None:
    """231,688 without a head's bias is the size of the reference; four biases of d/2 and nothing else are added."""
    sizes = {"vocab_size": 1024, "d_model": 64, "layers": 2, "heads": 4, "context": 64}
    baseline = WaveGPT(preset("baseline", **sizes)).parameter_counts()
    assert baseline["total"] == 231_688 - 1024
    polar = WaveGPT(WaveConfig(**sizes, embedding=EmbeddingConfig(kind="table"))).parameter_counts()
    assert polar["total"] - baseline["total"] == 2 * 4 * 32


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_takes_three_steps(name: str) -> None:
    config = ARMS[name]
    torch.manual_seed(0)
    model = WaveGPT(config, torch.randperm(V))
    optimizer = build_optimizer(model)
    ids = some_ids(4, CONTEXT + 1)
    for step in range(3):
        observed = Observed()
        ratio = config.embedding.anneal.ratio(step + 1)
        logits = model(ids[:, :-1], ratio=ratio, observed=observed)
        loss = wave_loss(logits, ids[:, 1:], config.loss, observed)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.isfinite().all()) for p in model.parameters())


def test_a_wave_model_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "d_model": 32, "layers": 1, "heads": 2, "context": 16}
    model = WaveGPT(WaveConfig(**sizes, embedding=EmbeddingConfig(waves=8)), torch.randperm(V))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = some_ids(2, 17)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_by_default_annealing_has_ended() -> None:
    model = model_of(small(WaveConfig(embedding=EmbeddingConfig(anneal=AnnealConfig(steps=5, end=0.25)))))
    assert torch.equal(model(some_ids()), model(some_ids(), ratio=0.25))
    assert not torch.equal(model(some_ids()), model(some_ids(), ratio=0.0))


def test_segments_are_checked() -> None:
    model, ids = model_of(ARMS["wave"]), some_ids()
    with pytest.raises(ValueError, match="shape"):
        model(ids, segments=torch.zeros(1, 3, dtype=torch.long))
    cache = model.new_cache()
    model(ids, cache=cache)
    with pytest.raises(ValueError, match="at each call"):
        model(ids, segments=torch.zeros_like(ids), cache=cache)
    with pytest.raises(ValueError, match="window is 0"):
        model.new_cache(0)


def test_bf16_autocast_stays_near_fp32() -> None:
    for name in ("wave", "integrated-softmax", "integrated-sum", "source/interference", "pure_wave_linear"):
        model = model_of(ARMS[name], torch.float32, spread=0.02)
        plain = model(some_ids())
        with torch.autocast("cpu", torch.bfloat16):
            near = model(some_ids())
        assert (near.float() - plain).abs().max() < 0.05 * plain.abs().max(), name


def test_a_model_cast_to_16_bits_stays_near_fp32() -> None:
    for name, config in ARMS.items():
        model = model_of(config, torch.float32, spread=0.02)
        plain = model(some_ids())
        model = model.to(torch.bfloat16)
        near = model(some_ids())
        assert near.dtype == torch.bfloat16
        bound = (0.5 if name == "learned" else 0.1) * plain.abs().max()  # learned frequencies are cast themselves
        assert (near.float() - plain).abs().max() < bound, name
        cache = model.new_cache()
        model(some_ids()[:, :-1], cache=cache)
        last = model(some_ids()[:, -1:], cache=cache)[:, 0].float()
        assert (last - plain[:, -1]).abs().max() < bound, name


@pytest.mark.parametrize("phase", ["fixed", "integrated"])
def test_phases_in_attention_stay_exact_under_autocast(phase: str) -> None:
    """φ = 0 and ω = Ω: θ is Ωt, of which 16 bits would leave three digits."""
    model = model_of(small(WaveConfig(attention=AttentionConfig(phase=phase))), torch.float32, spread=0.0)
    attention = model.blocks[0].attention
    for name, parameter in attention.named_parameters():
        if name.startswith(("phases", "frequency")):
            torch.nn.init.zeros_(parameter)
    observed, T = Observed(), 700
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(some_ids(1, T), observed=observed)
    real, imaginary = observed.phasors[0]
    turns = torch.arange(T) + (phase == "integrated")
    angle = turns[:, None] * ladder(real.shape[-1], 1e4)
    amplitude = real.hypot(imaginary).double()
    assert real.dtype == torch.float32
    assert (real - amplitude * angle.cos()).abs().max() < 1e-4
    assert (imaginary - amplitude * angle.sin()).abs().max() < 1e-4


def test_after_annealing_training_still_gives_every_parameter_a_gradient() -> None:
    """Distributed data parallel waits for each; the table's is 0."""
    model = WaveGPT(ARMS["source/interference"], torch.arange(V)).train()
    model(some_ids(), ratio=0.0).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert float(model.embedding.table.weight.grad.abs().max()) == 0
