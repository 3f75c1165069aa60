"""The language model of an arm: embedding, blocks, norm, head."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.cache import Cache
from wavegpt.attention.places import places_of
from wavegpt.block import Block
from wavegpt.config import WaveConfig
from wavegpt.embedding import embedding_of, norm_of
from wavegpt.observed import Observed

INIT_SD = 0.02


class WaveGPT(nn.Module):
    """A causal language model by its configuration, a wave model or one of its controls.

    Args:
        config: the arm.
        ranks: frequency ranks of the tokens, (V,), 0 the commonest: a permutation. For `embedding.mass` rank, shuffled
            and reversed; shuffled is by the global seed.

    Raises:
        ValueError: no vocab_size, or ranks are needed and missing.

    >>> model = WaveGPT(WaveConfig(vocab_size=50, d_model=16, layers=1, heads=2, embedding={"kind": "table"}))
    >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 50])
    """

    def __init__(self, config: WaveConfig, ranks: Int[Tensor, " V"] | None = None) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding_of(config, ranks)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        vocab_size = config.vocab_size or 0  # the embedding refuses null
        norms = [norm_of(config) for _ in range(1 + config.double_ln)]
        self.norm = nn.Sequential(*norms)
        if not config.tie_head:
            self.head = nn.Linear(config.d_model, vocab_size, bias=config.head_bias)
        elif config.head_bias:
            self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self._initialise()

    def _initialise(self) -> None:
        """Matrices N(0, 0.02²), biases 0; output projections by 1/√(2L); then what parts set themselves."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_SD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            if self.config.residual_scale:
                for projection in (block.attention.out, block.mlp.down):
                    projection.weight.data.mul_((2 * self.config.layers) ** -0.5)
            block.attention.initialise()

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        segments: Tensor | None = None,
        ratio: float | int | Tensor | None = None,
        cache: Cache | None = None,
        observed: Observed | None = None,
        last: bool = False,
    ) -> Float[Tensor, "B T_or_1 V"]:
        """Logits.

        Args:
            ids: of tokens.
            segments: (B, T), numbers of documents in a packed row or of padding on the left; tokens see their own.
            ratio: r of the annealing (`config.embedding.anneal.ratio(step)`); null: its end.
            cache: of the tokens before, which these are added to.
            observed: gets the states and phasors.
            last: of the last token alone.
        """
        if ratio is None:
            anneal = self.config.embedding.anneal
            ratio = anneal.ratio(anneal.steps)
        places = places_of(ids, segments, cache)
        x = self.embedding(ids, places.positions, ratio, observed)
        if observed is not None:
            observed.states.append(x)
            observed.harmonics = self.embedding.harmonic_amplitudes
        for i, block in enumerate(self.blocks):
            x = block(x, places, None if cache is None else cache.layers[i], observed)
            if observed is not None:
                observed.states.append(x)
        if cache is not None:
            cache.advance(places.positions, segments)
        x = self.norm(x[:, -1:] if last else x)
        if not self.config.tie_head:
            return self.head(x)
        return F.linear(x, self.embedding.head_weight(ratio), self.head_bias if self.config.head_bias else None)

    def new_cache(self, window: int | None = None) -> Cache:
        """An empty cache of the last `window` tokens, `context` by default; of linear arms, of all.

        Raises:
            ValueError: the window is not positive.
        """
        window = self.config.context if window is None else window
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1")
        layers = [block.attention.cache(window) for block in self.blocks if isinstance(block, Block)]
        return Cache(layers, None if self.config.attention.linear else window)

    def parameter_counts(self) -> Mapping[str, int]:
        """Numbers of parameters: of the embedding, the head, everything else, and in total."""
        embedding = sum(p.numel() for p in self.embedding.parameters())
        head = sum(p.numel() for name, p in self.named_parameters() if name.startswith("head"))
        total = sum(p.numel() for p in self.parameters())
        return {"embedding": embedding, "head": head, "other": total - embedding - head, "total": total}

    def angles(self) -> list[nn.Parameter]:
        """Phases and frequencies of the embedding: no weight decay, a learning rate of their own."""
        return self.embedding.angles()
