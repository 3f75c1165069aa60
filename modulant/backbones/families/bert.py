"""Encoders with a masked-language-model head: BERT and what follows it."""

from modulant.backbones.families.base import Family

_LIKE_BERT = {
    "q": ("attention.self.query",),
    "k": ("attention.self.key",),
    "v": ("attention.self.value",),
    "o": ("attention.output.dense",),
    "wi": ("intermediate.dense",),
    "wo": ("output.dense",),
}

BERTS: tuple[Family, ...] = (
    Family(
        model_type="bert",
        side="encoder",
        stack="BertModel",
        block="BertLayer",
        blocks="encoder.layer",
        embed="embeddings.word_embeddings",
        heads=("masked_lm",),
        masked_head=("cls",),
        matrices=_LIKE_BERT,
        pooler=True,
    ),
    Family(
        model_type="roberta",
        side="encoder",
        stack="RobertaModel",
        block="RobertaLayer",
        blocks="encoder.layer",
        embed="embeddings.word_embeddings",
        heads=("masked_lm",),
        masked_head=("lm_head",),
        matrices=_LIKE_BERT,
        reserved=1,
        padded=True,
        pooler=True,
    ),
    Family(
        model_type="distilbert",
        side="encoder",
        stack="DistilBertModel",
        block="TransformerBlock",
        blocks="transformer.layer",
        embed="embeddings.word_embeddings",
        heads=("masked_lm",),
        masked_head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        matrices={
            "q": ("attention.q_lin",),
            "k": ("attention.k_lin",),
            "v": ("attention.v_lin",),
            "o": ("attention.out_lin",),
            "wi": ("ffn.lin1",),
            "wo": ("ffn.lin2",),
        },
    ),
    Family(
        model_type="mpnet",
        side="encoder",
        stack="MPNetModel",
        block="MPNetLayer",
        blocks="encoder.layer",
        embed="embeddings.word_embeddings",
        sender="encoder",  # MPNetModel takes any keyword argument, and hands none of them on
        heads=("masked_lm",),
        masked_head=("lm_head",),
        matrices={
            **{kind: (f"attention.attn.{kind}",) for kind in "qkvo"},
            "wi": ("intermediate.dense",),
            "wo": ("output.dense",),
        },
        reserved=2,  # whatever pad_token_id is
        pooler=True,
    ),
    Family(
        model_type="modernbert",
        side="encoder",
        stack="ModernBertModel",
        block="ModernBertEncoderLayer",
        blocks="layers",
        embed="embeddings.tok_embeddings",
        final_norm="final_norm",
        heads=("masked_lm",),
        masked_head=("head", "decoder"),
        matrices={"qkv": ("attn.Wqkv",), "o": ("attn.Wo",), "wi": ("mlp.Wi",), "wo": ("mlp.Wo",)},  # wi holds its gate
    ),
)
