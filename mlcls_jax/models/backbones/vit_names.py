"""Names of vision transformers' parameters in files of Paddle, timm, OpenAI and Hugging Face."""

from mlcls_jax.models.backbones.vit import ViT, ViTConfig
from mlcls_jax.models.weight_names import NameTable, Rule, renamed

_PATCHES = {"patch_kernel": "conv", "pos_embed": "positions"}


def names(backbone: ViT, origin: str) -> NameTable:
    """Map each parameter to its place in a file of paddle, timm, openai or huggingface.

    Paddle's `proj` has no use here; the others' projection into the text space: `texts.py`.
    """
    if origin in ("paddle", "timm"):
        rules = _timm_rules(backbone.config, is_paddle=origin == "paddle")
        return renamed(backbone, origin, rules, layouts=_PATCHES)
    rules, in_kv = _OPENAI, {}
    if origin == "huggingface":  # one matrix has the queries, keys and values of the pooling
        rules = _HUGGING_FACE
        in_kv = {"attention_pool/q/": "query", "attention_pool/kv/": "key_value"}
    layouts = _PATCHES | in_kv | {"cls_token": "reshape"}
    return renamed(backbone, origin, rules, layouts=layouts)


def _timm_rules(config: ViTConfig, *, is_paddle: bool) -> list[Rule]:
    qkv, bias = (
        (".{q,k,v}_proj.weight", "_proj.bias") if config.qkv_apart else (".qkv.weight", "_bias")
    )
    scale = r"gamma_\1" if config.rope != "none" else r"ls\1.gamma"
    rules: list[Rule] = [
        (r"^patch_kernel", "patch_embed.proj.weight"),
        (r"^patch_bias", "patch_embed.proj.bias"),
        (r"^ln_pre", "ln_pre" if is_paddle else "norm_pre"),
        (r"^norm\.", "fc_norm." if config.norm_after_pooling else "norm."),
        (r"^attention_pool", "attn_pool"),
        (r"\.fc", ".mlp.fc"),
        (r"^block(\d+)\.(qkv|proj|[qv]_bias)", r"blocks.\1.attn.\2"),
        (r"^block(\d+)\.attention_norm", r"blocks.\1.attn.norm"),
        (r"^block(\d+)\.hidden_norm", r"blocks.\1.mlp.norm"),
        (r"^block(\d+)", r"blocks.\1"),
        (r"\.qkv\.weight", qkv),
        (r"\.([qv])_bias", rf".\1{bias}"),
        (r"\.scale(\d)", f".{scale}"),
    ]
    return [*rules, (r"mlp\.fc1\.", "mlp.fc1_{g,x}.")] if config.gate_apart else rules


def block_rules(blocks: str, origin: str) -> tuple[Rule, ...]:
    """Return the rules for the blocks of a tower, of images or texts, in files of two origins.

    Args:
      blocks: what they are called there, without their numbers.
      origin: openai, which keeps queries, keys and values in one matrix; or huggingface.
    """
    if origin == "openai":
        parts = (
            (r"\.norm(\d)", r".ln_\2"),
            (r"\.proj", ".attn.out_proj"),
            (r"\.qkv\.", ".attn.in_proj_"),
            (r"\.fc1", ".mlp.c_fc"),
            (r"\.fc2", ".mlp.c_proj"),
        )
    else:
        parts = (
            (r"\.norm(\d)", r".layer_norm\2"),
            (r"\.proj", ".self_attn.out_proj"),
            (r"\.qkv", ".self_attn.{q,k,v}_proj"),
            (r"\.fc", ".mlp.fc"),
        )
    in_block = ((rf"^(block\d+){part}", rf"\1{text}") for part, text in parts)
    return (*in_block, (r"^block(\d+)", rf"{blocks}.\1"))


_OPENAI: tuple[Rule, ...] = (
    *block_rules("visual.transformer.resblocks", "openai"),
    (r"^patch_kernel", "visual.conv1.weight"),
    (r"^cls_token", "visual.class_embedding"),
    (r"^pos_embed", "visual.positional_embedding"),
    (r"^ln_pre", "visual.ln_pre"),
    (r"^norm", "visual.ln_post"),
)
_HUGGING_FACE: tuple[Rule, ...] = (
    *block_rules("encoder.layers", "huggingface"),
    (r"^patch_kernel", "embeddings.patch_embedding.weight"),
    (r"^patch_bias", "embeddings.patch_embedding.bias"),
    (r"^cls_token", "embeddings.class_embedding"),
    (r"^pos_embed", "embeddings.position_embedding.weight"),
    (r"^ln_pre", "pre_layrnorm"),  # their spelling
    (r"^norm", "post_layernorm"),
    (r"^attention_pool\.latent", "head.probe"),
    (r"^attention_pool\.k?[qv]\.", "head.attention.in_proj_"),
    (r"^attention_pool\.proj", "head.attention.out_proj"),
    (r"^attention_pool\.norm", "head.layernorm"),
    (r"^attention_pool\.", "head.mlp."),
    (r"^", "vision_model."),
)
