"""Small towers of images and texts, whose numbers `transformers` and `open_clip` have computed.

The goldens in `tests/data/words` have the drawn weights of `test_timm_parity.draw`, where token and
position embeddings are of the kind `table`; `logit_scale` is 3, `logit_bias` -2.
"""

import json
import zlib
from dataclasses import replace

import numpy as np
import tokenizers
from safetensors.numpy import save_file

from mlcls_jax.models import registry
from tests.helpers.paddle_recipe import DATA

GOLDENS = ("clip_huggingface", "clip_openai", "siglip_huggingface")
CONTEXT = 16
WORDS = ("a", "photo", "of", "dog", "snow", "cat", "zero", "one", "two", "with", "many", "wörds")
FACTORS = {"bias": 0.1, "table": 0.2}


def read(name):
    """The arrays of a golden, and its drawn state dict."""
    with np.load(DATA.parent / "words" / f"{name}.npz") as arrays:
        expected = dict(arrays)
    meta = json.loads(str(expected["meta"]))
    state = {key: _draw(key, *told, meta["seed"]) for key, told in meta["state"].items()}
    return expected, state


def _draw(key, shape, kind, seed):
    rng = np.random.Generator(np.random.PCG64((zlib.crc32(key.encode()) ^ seed) & 0xFFFFFFFF))
    z = rng.standard_normal(shape).astype(np.float32)
    if kind in ("logit_scale", "logit_bias"):
        return np.full(shape, 3.0 if kind == "logit_scale" else -2.0, np.float32)
    if kind == "scale":
        return 1 + np.float32(0.1) * np.tanh(z)
    if kind == "conv":
        return np.float32(np.sqrt(2 / np.prod(shape[1:]))) * z
    return np.float32(FACTORS.get(kind) or np.sqrt(1 / shape[-1])) * z


def write(folder, name):
    """Lay weights and tokenizer out as they are published; return the name of the model."""
    folder.mkdir(exist_ok=True)
    save_file(read(name)[1], folder / "model.safetensors")
    is_clip = name.startswith("clip")
    write_tokenizer(folder / "tokenizer.json", is_clip=is_clip)
    return f"{'CLIP' if is_clip else 'SigLIP'}_vit_tiny_patch16_224"


def write_tokenizer(path, *, is_clip):
    """A tokenizer of a few words, with the marks of CLIP or of SigLIP 2."""
    marks = (
        {"<pad>": 0, "<eos>": 1} if not is_clip else {"<|startoftext|>": 97, "<|endoftext|>": 98}
    )
    vocabulary = {word: number for number, word in enumerate(WORDS, 5)} | marks | {"?": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.normalizer = tokenizers.normalizers.Lowercase() if is_clip else None
    tokenizer.enable_padding(length=3)  # whatever a file says of it does not count
    tokenizer.save(str(path))


def register(patch):
    """Make the towers of images known as CLIP_ and SigLIP_vit_tiny_patch16_224."""
    sizes = {"depth": 2, "num_heads": 2, "grid": 2, "patch_size": 16}
    for family, like, name, width, hidden in (
        ("CLIP", "CLIP_vit_base_patch16_224", "CLIP_vit_tiny_patch16_224", 64, 128),
        ("vit_clip", "vit_base_patch16_clip_quickgelu_224",
         "vit_tiny_patch16_clip_quickgelu_224", 64, 128),
        ("SigLIP", "SigLIP_vit_base_patch16_224", "SigLIP_vit_tiny_patch16_224", 128, 128),
    ):  # fmt: skip
        variants = registry.FAMILIES[family].variants
        small = replace(variants[like], **sizes, width=width, hidden=hidden)
        patch.setitem(variants, name, small)
