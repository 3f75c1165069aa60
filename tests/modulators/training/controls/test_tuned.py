"""Blocks that are fine-tuned whole: they alone learn, and the base is there again, bit for bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modulators import TunedT5, load_t5


def test_its_layers_alone_learn(backbone: str, tokens: dict[str, Tensor]) -> None:
    module = TunedT5(backbone=backbone, layers=[1, 2])
    module.configure_model()
    learned = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert learned
    assert all(name.startswith(("encoder.block.1.", "encoder.block.2.")) for name in learned)
    assert set(module.state_dict()) == {f"blocks.{name}" for name in learned}
    assert sum(len(group["params"]) for group in module._parameter_groups()) == len(learned)


def test_disabled_is_the_base_to_the_bit(backbone: str, tokens: dict[str, Tensor]) -> None:
    module = TunedT5(backbone=backbone)
    module.configure_model()
    base, _ = load_t5(backbone)
    inputs: dict[str, Any] = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    expected = base.encoder(**inputs).last_hidden_state
    with torch.no_grad():
        for parameter in module._blocks().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
        tuned = module.encode(**inputs)
        assert module.handle is not None
        with module.handle.disabled(), module.handle.disabled():
            assert torch.equal(module.encode(**inputs), expected)
        assert torch.equal(module.encode(**inputs), tuned)
    assert not torch.equal(tuned, expected)


def test_a_state_dict_goes_into_another(backbone: str, tokens: dict[str, Tensor]) -> None:
    module, other = TunedT5(backbone=backbone), TunedT5(backbone=backbone)
    module.configure_model()
    other.configure_model()
    with torch.no_grad():
        for parameter in module._blocks().values():
            parameter.add_(1.0)
    other.load_state_dict(module.state_dict())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in module.state_dict().items())
    with pytest.raises(ValueError, match="missing"):
        other.load_state_dict({})
