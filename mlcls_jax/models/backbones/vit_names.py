"""Names of vision transformers' parameters in files of Paddle, timm, OpenAI and Hugging Face."""

from mlcls_jax.models.backbones.vit import ViT, ViTConfig
from mlcls_jax.models.weight_names import (
    Foreign,
    NameTable,
    affine_names,
    layer_norm_names,
    linear_layout,
)


def names(backbone: ViT, origin: str) -> NameTable:
    """Map each parameter to its place in a file of paddle, timm, openai or huggingface.

    Paddle's `proj` has no use here; the others' projection into the text space: `texts.py`.
    """
    tables = {"openai": _openai_names, "huggingface": _huggingface_names}
    if origin in tables:
        return tables[origin](backbone)
    return _timm_names(backbone, linear_layout(origin), is_paddle=origin == "paddle")


def _timm_names(backbone: ViT, linear: str, *, is_paddle: bool) -> NameTable:
    config = backbone.config
    table: NameTable = {"patch_kernel": Foreign("patch_embed.proj.weight", "conv")}
    if not config.pre_norm:
        table["patch_bias"] = Foreign("patch_embed.proj.bias")
    table |= {  # in the order in which Paddle makes them, which its inference folders count
        path: Foreign(path, layout)
        for path, layout in (
            ("pos_embed", "positions"),
            ("cls_token", "same"),
            ("reg_token", "same"),
        )
        if path in backbone.parts.stem
    }
    if config.pre_norm:
        table |= layer_norm_names("ln_pre", "ln_pre" if is_paddle else "norm_pre")
    for index in range(config.depth):
        table |= _timm_block(config, f"block{index}", f"blocks.{index}", linear)
    if backbone.attention_pool is not None:
        table["attention_pool/latent"] = Foreign("attn_pool.latent")
        for ours, theirs in (*((n, n) for n in ("q", "kv", "proj")), *_LAYERS.items()):
            table |= affine_names(f"attention_pool/{ours}", f"attn_pool.{theirs}", linear)
        table |= layer_norm_names("attention_pool/norm", "attn_pool.norm")
    return table | layer_norm_names("norm", "fc_norm" if config.norm_after_pooling else "norm")


_LAYERS = {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def _timm_block(config: ViTConfig, ours: str, theirs: str, linear: str) -> NameTable:
    table = layer_norm_names(f"{ours}/norm1", f"{theirs}.norm1")
    table |= layer_norm_names(f"{ours}/norm2", f"{theirs}.norm2")
    for layer, name in {"qkv": "attn.qkv", "proj": "attn.proj", **_LAYERS}.items():
        table |= affine_names(f"{ours}/{layer}", f"{theirs}.{name}", linear)
    if config.qkv_bias != "all":
        del table[f"{ours}/qkv/bias"]
    if config.qkv_apart:
        apart = tuple(f"{theirs}.attn.{part}_proj.weight" for part in "qkv")
        table[f"{ours}/qkv/kernel"] = Foreign(apart, linear)
    if config.gate_apart:
        for part, layout in (("weight", linear), ("bias", "same")):
            apart = tuple(f"{theirs}.mlp.fc1_{name}.{part}" for name in "gx")
            table[f"{ours}/fc1/{'kernel' if part == 'weight' else part}"] = Foreign(apart, layout)
    if config.qkv_bias == "query_value":
        form = "attn.{}_proj.bias" if config.qkv_apart else "attn.{}_bias"
        table |= {f"{ours}/{p}_bias": Foreign(f"{theirs}.{form.format(p)}") for p in "qv"}
    if config.attention_norm:
        table |= layer_norm_names(f"{ours}/attention_norm", f"{theirs}.attn.norm")
    if config.hidden_norm:
        table |= layer_norm_names(f"{ours}/hidden_norm", f"{theirs}.mlp.norm")
    if config.layer_scale is not None:
        form = "gamma_{}" if config.rope == "dinov3" else "ls{}.gamma"
        table |= {f"{ours}/scale{i}": Foreign(f"{theirs}.{form.format(i)}") for i in (1, 2)}
    return table


def _openai_names(backbone: ViT) -> NameTable:
    table: NameTable = {
        "patch_kernel": Foreign("visual.conv1.weight", "conv"),
        "cls_token": Foreign("visual.class_embedding", "reshape"),
        "pos_embed": Foreign("visual.positional_embedding", "positions"),
    }
    table |= layer_norm_names("ln_pre", "visual.ln_pre")
    table |= layer_norm_names("norm", "visual.ln_post")
    return table | block_names(backbone.config.depth, "visual.transformer.resblocks", "openai")


def _huggingface_names(backbone: ViT) -> NameTable:
    tower = "vision_model"
    patches = affine_names("patch", f"{tower}.embeddings.patch_embedding", "conv")
    others = {
        "patch_kernel": patches["patch/kernel"],
        "patch_bias": patches["patch/bias"],
        "cls_token": Foreign(f"{tower}.embeddings.class_embedding", "reshape"),
        "pos_embed": Foreign(f"{tower}.embeddings.position_embedding.weight", "positions"),
    }
    table: NameTable = {path: f for path, f in others.items() if path in backbone.parts.stem}
    if backbone.config.pre_norm:
        table |= layer_norm_names("ln_pre", f"{tower}.pre_layrnorm")  # their spelling
    table |= layer_norm_names("norm", f"{tower}.post_layernorm")
    if backbone.attention_pool is not None:
        ours, head = "attention_pool", f"{tower}.head"
        table[f"{ours}/latent"] = Foreign(f"{head}.probe")
        for part, layout in (("q", "query"), ("kv", "key_value")):  # of one matrix
            theirs = f"{head}.attention.in_proj"
            table[f"{ours}/{part}/kernel"] = Foreign(f"{theirs}_weight", layout)
            table[f"{ours}/{part}/bias"] = Foreign(f"{theirs}_bias", layout)
        for layer, name in {"proj": "attention.out_proj", **_LAYERS}.items():
            table |= affine_names(f"{ours}/{layer}", f"{head}.{name}", "linear")
        table |= layer_norm_names(f"{ours}/norm", f"{head}.layernorm")
    blocks = f"{tower}.encoder.layers"
    return table | block_names(backbone.config.depth, blocks, "huggingface")


def block_names(depth: int, blocks: str, origin: str) -> NameTable:
    """Return the table of a tower's blocks, of images or texts, in a file of openai or huggingface.

    Args:
      depth: number of blocks.
      blocks: what they are called there, without their numbers.
      origin: the former keeps queries, keys and values in one matrix.
    """
    if origin == "openai":
        norms = {"norm1": "ln_1", "norm2": "ln_2"}
        layers = {"proj": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
        weights, biases = ("attn.in_proj_weight",), ("attn.in_proj_bias",)
    else:
        norms = {"norm1": "layer_norm1", "norm2": "layer_norm2"}
        layers = {"proj": "self_attn.out_proj", **_LAYERS}
        weights, biases = (
            tuple(f"self_attn.{p}_proj.{part}" for p in "qkv") for part in ("weight", "bias")
        )
    table: NameTable = {}
    for index in range(depth):
        ours, theirs = f"block{index}", f"{blocks}.{index}"
        for norm, name in norms.items():
            table |= layer_norm_names(f"{ours}/{norm}", f"{theirs}.{name}")
        for layer, name in layers.items():
            table |= affine_names(f"{ours}/{layer}", f"{theirs}.{name}", "linear")
        for part, names, layout in (("kernel", weights, "linear"), ("bias", biases, "same")):
            keys = tuple(f"{theirs}.{name}" for name in names)
            table[f"{ours}/qkv/{part}"] = Foreign(keys, layout)
    return table
