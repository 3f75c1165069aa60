"""Entry representations of a real run: the definition, entry by entry; when they are kept; what they leave alone."""

from types import ModuleType

import pytest
import torch

from callbacks.measures.representations import encode_population, entry_representations


def one_at_a_time(module, words) -> torch.Tensor:
    rows = []
    with torch.no_grad():
        for ids, n in zip(words.ids, words.lengths, strict=True):
            rows.append(module.encode(ids[None, :n], torch.ones(1, n, dtype=torch.long))[0].mean(0))
    return torch.stack(rows)


def test_both_kinds_equal_the_definition_without_padding(tiny: ModuleType) -> None:
    trainer, module, words = tiny.make_trainer(), tiny.TinyT5().eval(), tiny.TinyWords()
    trainer.validate(module, datamodule=words, verbose=False)
    base = entry_representations(trainer, module, base=True)
    modulated = entry_representations(trainer, module, base=False)
    assert base.dtype == torch.float32
    torch.testing.assert_close(modulated, one_at_a_time(module, words), rtol=1e-4, atol=1e-5)
    with module.handle.disabled():
        torch.testing.assert_close(base, one_at_a_time(module, words), rtol=1e-4, atol=1e-5)
    assert (base - modulated).abs().max() > 1e-3, "the modulator must do something here"


def test_they_are_kept_until_a_weight_or_the_data_changes(tiny: ModuleType) -> None:
    trainer, module, words = tiny.make_trainer(), tiny.TinyT5().eval(), tiny.TinyWords()
    trainer.validate(module, datamodule=words, verbose=False)
    base, first = (entry_representations(trainer, module, base=b) for b in (True, False))
    assert entry_representations(trainer, module, base=True) is base
    assert entry_representations(trainer, module, base=False) is first
    with torch.no_grad():
        module.modulator.alpha_logits.data.add_(1)  # by .data: no version counter moves
    assert entry_representations(trainer, module, base=True) is base
    assert not torch.equal(entry_representations(trainer, module, base=False), first)
    other = tiny.TinyWords()
    other.ids = other.ids.flip(0)
    trainer.validate(module, datamodule=other, verbose=False)
    assert not torch.equal(entry_representations(trainer, module, base=True), base)


def test_modes_come_back_and_no_dropout_reaches_the_representations(tiny: ModuleType) -> None:
    trainer, module, words = tiny.make_trainer(), tiny.TinyT5(modulated=False), tiny.TinyWords()
    trainer.validate(module, datamodule=words, verbose=False)
    module.train()
    module.backbone.encoder.block[0].eval()
    before = [part.training for part in module.modules()]
    first, second = (encode_population(trainer, module, module.encode, "again") for _ in range(2))
    assert torch.equal(first, second)
    assert [part.training for part in module.modules()] == before


def test_the_runs_precision_is_used_and_the_means_are_fp32(tiny: ModuleType) -> None:
    module, words = tiny.TinyT5().eval(), tiny.TinyWords()
    results = []
    for precision in ("32-true", "bf16-mixed"):
        trainer = tiny.make_trainer(precision=precision)
        trainer.validate(module, datamodule=words, verbose=False)
        results.append(encode_population(trainer, module, module.encode, "entries"))
    assert results[1].dtype == torch.float32
    assert not torch.equal(*results)
    torch.testing.assert_close(*results, rtol=0.1, atol=0.1)


def test_a_run_without_a_population_is_an_error(tiny: ModuleType) -> None:
    trainer, module = tiny.make_trainer(), tiny.TinyT5()
    with pytest.raises(ValueError, match="the run has no DataModule"):
        entry_representations(trainer, module, base=False)
