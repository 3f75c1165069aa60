"""What is known of a family: where its parts are, and which sizes they have.

All families call a block with its hidden states first, by position. A test checks that, and that what a stack does not
know of its keyword arguments reaches its blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from modulant.backbones.stream import ResidualStream


@dataclass(frozen=True)
class Shape:
    """Sizes of one stack.

    Attributes:
        d_model: width of the stream.
        n_layers: number of blocks.
        vocab_size: rows of the table of token embeddings; 1 where images are read.
        n_heads: attention heads, of queries.
        n_kv_heads: heads of keys and values; fewer where queries share them.
        head_width: width of one head.
        n_positions: longest sequence; None: no limit.
    """

    d_model: int
    n_layers: int
    vocab_size: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    n_positions: int | None

    @property
    def stream(self) -> ResidualStream:
        return ResidualStream(self.d_model, self.n_layers, self.vocab_size)


@dataclass(frozen=True)
class Family:
    """One stack of one model type.

    Attributes:
        model_type: of the configuration that holds the sizes.
        side: ``encoder`` or ``decoder``; of CLIP ``text`` or ``vision``.
        stack: class of the module that reads token ids or pixels and returns ``last_hidden_state``.
        block: class of a block.
        blocks: path from the stack to the list of blocks.
        embed: path from the stack to the token embeddings, or to the module that embeds patches.
        final_norm: path from the stack to the norm after the last block; None where each block ends with its norm.
        sender: path from the stack to the module whose unknown keyword arguments reach the blocks; "": the stack.
        heads: what `open_model` can open it with.
        causal: whether a token attends to those before it alone.
        reads: name of the stack's input.
        positions: key of the configuration that limits a sequence's length; None: nothing does.
        reserved: rows of the table of positions before the first position.
        padded: whether there are ``pad_token_id`` more of them.
        pooler: whether the bare model may have a pooler, which is beside the stream and not loaded.
        masked_head: paths from a model with that head to what makes logits of the last hidden state, one after another.
        matrices: kind → paths from a block to its matrices, each of which is named once: ``q``, ``k``, ``v``, or
            ``qkv`` where one makes all three; ``o``; ``wi``, of which a gated layer may have two; ``wo``; ``cross_q``
            … of a decoder that attends to an encoder. Of several paths a block may lack some: a T5 is gated or not.
    """

    model_type: str
    side: str
    stack: str
    block: str
    blocks: str
    embed: str
    final_norm: str | None = None
    sender: str = ""
    heads: tuple[str, ...] = ()
    causal: bool = False
    reads: str = "input_ids"
    positions: str | None = "max_position_embeddings"
    reserved: int = 0
    padded: bool = False
    pooler: bool = False
    masked_head: tuple[str, ...] = ()
    matrices: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def needs_encoder(self) -> bool:
        """Whether the stack attends to an encoder's output, as a T5's decoder does."""
        return self.side == "decoder" and "seq2seq" in self.heads

    def shape(self, config: Any) -> Shape:
        """Sizes, from the configuration."""
        n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
        if self.side == "decoder" and getattr(config, "num_decoder_layers", None) is not None:
            n_layers = config.num_decoder_layers
        positions = None if self.positions is None else getattr(config, self.positions) - self.reserved
        if positions is not None and self.padded:
            positions -= config.pad_token_id
        return Shape(
            d_model=config.hidden_size,
            n_layers=n_layers,
            vocab_size=config.vocab_size if self.reads == "input_ids" else 1,
            n_heads=n_heads,
            n_kv_heads=getattr(config, "num_key_value_heads", None) or n_heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
            n_positions=positions,
        )

    def parts(self, module: nn.Module, config: Any) -> "Parts | None":
        """The parts, if `module` is this family's stack; None if it is anything else."""
        if not _is_a(module, self.stack):
            return None
        decodes = self.side == "decoder"
        if getattr(module, "is_decoder", decodes) != decodes:  # both stacks of a T5 are of one class
            return None
        blocks = at_path(module, self.blocks)
        if not isinstance(blocks, nn.ModuleList) or not all(_is_a(block, self.block) for block in blocks):
            return None
        return Parts(self, self.shape(config), module, blocks, at_path(module, self.sender))

    def matrices_of(self, block: nn.Module) -> dict[str, dict[str, nn.Module]]:
        """Kind → path → matrix, of those that a block has: `Linear`, or GPT-2's `Conv1D`."""
        found = {
            kind: {path: matrix for path in paths if (matrix := at_path(block, path)) is not None}
            for kind, paths in self.matrices.items()
        }
        assert all(found.values()), f"a {self.block} lacks a matrix"
        return found


class Parts(NamedTuple):
    """Modules of one model: what reads the tokens, its blocks, and what hands keyword arguments to them."""

    family: Family
    shape: Shape
    stack: nn.Module
    blocks: nn.ModuleList
    sender: Any


def at_path(module: Any, path: str) -> Any:
    """The attribute at a dotted path, the module itself at ""; None if there is none."""
    for name in path.split(".") if path else ():
        module = getattr(module, name, None)
    return module


def path_to(module: nn.Module, part: nn.Module) -> str:
    """The dotted path at which `at_path` finds a part of a module, "" for the module itself."""
    return next(path for path, inner in module.named_modules() if inner is part)


def sides(matrix: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a matrix of `Family.matrices_of`."""
    first, second = matrix.get_parameter("weight").shape
    return (first, second) if is_transposed(matrix) else (second, first)


def is_transposed(matrix: nn.Module) -> bool:
    """Whether a matrix is GPT-2's `Conv1D`, whose weight is (d_in, d_out)."""
    return _is_a(matrix, "Conv1D")


def _is_a(module: nn.Module, name: str) -> bool:
    # A sharded module's class is a subclass, made at run time.
    return any(kind.__name__ == name for kind in type(module).__mro__)
