"""Text towers of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023), of both versions.

A tower is made of the blocks of `backbones/vit.py`. Its sizes are those of the arrays in a file, so
that there is no list of towers: any size is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from mlcls_jax.errors import WeightsError
from mlcls_jax.models.backbones.vit import SMALL, Block, ViTConfig
from mlcls_jax.models.backbones.vit_names import block_rules
from mlcls_jax.models.initial import param
from mlcls_jax.models.layers import Linear
from mlcls_jax.models.norms import LayerNorm
from mlcls_jax.models.weight_names import NameTable, renamed

HEADS = {1152: 16}  # by width, of towers whose heads are not 64 wide
TOKENS = {  # name of the token embeddings in a file → who names so
    "token_embedding.weight": "openai",
    "text_model.embeddings.token_embedding.weight": "huggingface",
}


@dataclass(frozen=True)
class TextConfig:
    """Sizes, and whose tower it is."""

    kind: Literal["clip", "siglip"]
    vocabulary: int
    context: int  # tokens of a text, with padding
    size: int  # of the embedding
    layers: ViTConfig


def config_of(
    arrays: Mapping[str, np.ndarray], told: Mapping[str, Any]
) -> tuple[TextConfig, str] | None:
    """Return the sizes of the tower among the arrays, and the origin of its names; None: no tower.

    Args:
      arrays: of a file, by their names.
      told: what `config.json` beside it says under `text_config`: the heads and the activation,
        which arrays do not show. Without it they are those of the published towers.

    Raises:
      WeightsError: it says what cannot be.
    """
    found = next((key for key in TOKENS if key in arrays), None)
    if found is None:
        return None
    origin, (vocabulary, width) = TOKENS[found], arrays[found].shape
    is_openai, is_siglip = origin == "openai", "text_model.head.weight" in arrays
    start = "transformer.resblocks." if is_openai else "text_model.encoder.layers."
    depth = 1 + max(
        int(key.removeprefix(start).split(".")[0]) for key in arrays if key[: len(start)] == start
    )
    fc1 = f"{start}0.mlp.{'c_fc' if is_openai else 'fc1'}.weight"
    form = told.get("hidden_act", "gelu_pytorch_tanh" if is_siglip else "quick_gelu")
    heads = told.get("num_attention_heads", HEADS.get(width, width // 64))
    if form not in ("gelu", "gelu_pytorch_tanh", "quick_gelu"):
        raise WeightsError(f"text_config: hidden_act={form!r} is not known")
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise WeightsError(f"text_config: num_attention_heads={heads!r} does not divide {width}")
    layers = ViTConfig(
        width=width,
        depth=depth,
        num_heads=heads,
        hidden=arrays[fc1].shape[0],
        epsilon=1e-6 if is_siglip else 1e-5,
        quick_gelu=form == "quick_gelu",
        activation="tanh_gelu" if form == "gelu_pytorch_tanh" else "gelu",
        causal=not is_siglip,
    )
    positions = "positional_embedding" if is_openai else found.replace("token", "position")
    if is_siglip:
        size = arrays["text_model.head.weight"].shape[0]
    else:  # OpenAI stores [in, out]
        size = (
            arrays["text_projection"].shape[1]
            if is_openai
            else arrays["text_projection.weight"].shape[0]
        )
    kind = "siglip" if is_siglip else "clip"
    return TextConfig(kind, vocabulary, arrays[positions].shape[0], size, layers), origin


class TextTower(nnx.Module):
    """tokens [B, N] → embeddings [B, D], of any length."""

    def __init__(self, config: TextConfig) -> None:
        width, is_siglip = config.layers.width, config.kind == "siglip"
        self.tokens = param((config.vocabulary, width), SMALL)
        self.positions = param((config.context, width), SMALL)
        self.names = tuple(f"block{index}" for index in range(config.layers.depth))
        for name in self.names:
            setattr(self, name, Block(config.layers, dtype=None))
        self.norm = LayerNorm(width, epsilon=config.layers.epsilon)
        self.proj = Linear(width, config.size, bias=is_siglip)
        self.ends_with_padding = is_siglip

    def __call__(self, tokens: Int[Array, "B N"]) -> Float[Array, "B D"]:
        x = jnp.take(self.tokens[...], tokens, axis=0) + self.positions[...]
        for name in self.names:
            x = getattr(self, name)(x)
        # SigLIP reads the last token, padding or not; CLIP that of the text's end, the highest.
        last = jnp.full(len(tokens), -1) if self.ends_with_padding else tokens.argmax(1)
        return self.proj(self.norm(x[jnp.arange(len(tokens)), last]))


def names(tower: TextTower, config: TextConfig, origin: str) -> NameTable:
    """Return where each parameter of the tower is found in a file of openai or huggingface."""
    if origin == "openai":
        rules = (
            *block_rules("transformer.resblocks", origin),
            (r"^tokens", "token_embedding.weight"),
            (r"^positions", "positional_embedding"),
            (r"^proj\.weight", "text_projection"),
            (r"^norm", "ln_final"),
        )
        return renamed(tower, origin, rules, layouts={"^proj": "same"})
    rules = (
        *block_rules("text_model.encoder.layers", origin),
        (r"^(token|position)s", r"text_model.embeddings.\1_embedding.weight"),
        (r"^proj", "text_model.head" if config.kind == "siglip" else "text_projection"),
        (r"^norm", "text_model.final_layer_norm"),
    )
    return renamed(tower, origin, rules)
