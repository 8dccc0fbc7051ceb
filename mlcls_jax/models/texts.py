"""Texts as embeddings, by the text tower in a file that also has its images' tower.

Embeddings are kept in the user's cache, one file a prompt, so that no text is computed twice; as
long as there are none to compute the tower itself is not read.
"""

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mlcls_jax import files
from mlcls_jax.bars import progress
from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError, InputError, WeightsError
from mlcls_jax.models.network import call, outline
from mlcls_jax.models.published import Source
from mlcls_jax.models.registry import ML_SUFFIX, WORDS_SUFFIX, split_name
from mlcls_jax.models.text_tokens import PIECES, Tokenizer
from mlcls_jax.models.text_tower import TextConfig, TextTower, config_of, names
from mlcls_jax.models.weights import foreign, sources
from mlcls_jax.models.weights.fetch import HUB_FILES, local_file
from mlcls_jax.parsing import parse_json
from mlcls_jax.paths import HUB
from mlcls_jax.trees import by_path, map_by_path

TEMPLATES = ("a photo of {}.",)
PLAIN = "a photo."  # any picture: what CLIP's score of a label is held against
WORDS = "words"  # of `model.weights`: towers of images and texts that belong together
_BATCH = 16  # texts computed at once
_PROJECTIONS = {"visual.proj": False, "visual_projection.weight": True}  # stored as [out, in]


@dataclass(frozen=True)
class Texts:
    """A file with both towers; what is asked of it is read from there when it is needed."""

    path: Path  # of the weights
    tokenizer: Path
    settings: Path  # config.json, which need not be there

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of the file, by their names."""
        return foreign.read_weights(self.path)

    @property
    def kind(self) -> str:
        """`clip` or `siglip`: the latter's scores are of each label by itself."""
        return self._config[0].kind

    @property
    def activation(self) -> dict[str, Any]:
        """The options of `model` by which the images' tower has the activation of this one."""
        layers = self._config[0].layers
        if layers.quick_gelu:
            return {"quick_gelu": True}
        return {"quick_gelu": False, "activation": layers.activation}

    def image_projection(self, channels: int) -> Float[np.ndarray, "C D"]:
        """Return what turns the pooled features of an image into its embedding."""
        for key, is_turned in _PROJECTIONS.items():
            if key in self.arrays:
                array = np.asarray(self.arrays[key], np.float32)
                return array.T if is_turned else array
        return np.eye(channels, dtype=np.float32)

    def scale_and_bias(self) -> tuple[float, float]:
        """Return the factor of cosines that makes them logits, and what is added to these."""
        scale, bias = (
            np.ravel(self.arrays.get(f"logit_{name}", 0.0)) for name in ("scale", "bias")
        )
        return float(np.exp(scale[0].astype(np.float64))), float(bias[0])

    def embed(
        self, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
    ) -> Float[np.ndarray, "K D"]:
        """Return one embedding of length 1 a label: the mean over the templates, as for CLIP.

        Args:
          labels: texts such as `a dog`.
          templates: prompts in which {} stands for the label.

        Raises:
          InputError: a label is empty, or a template has no {}.
          WeightsError: file or tokenizer is missing, damaged or of another model.
        """
        if empty := [label for label in labels if not label.strip()]:
            raise InputError(f"labels: {empty[0]!r} is no text")
        if wrong := [template for template in templates if "{}" not in template] or not templates:
            raise InputError(f"templates: {wrong} has no {{}}, where the label goes")
        prompts = [t.replace("{}", label) for label in labels for t in templates]
        found = self.prompts(prompts).reshape(len(labels), len(templates), -1)
        return _unit(_unit(found).mean(1))

    def prompts(self, texts: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """Return the embeddings of texts as they are; see `embed`."""
        stat = self.path.stat()
        key = f"{self.path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()
        folder = files.cache_folder("texts") / hashlib.sha256(key).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        places = {t: folder / f"{hashlib.sha256(t.encode()).hexdigest()[:32]}.npz" for t in texts}
        known = {text: files.read_arrays(place, "embedding") for text, place in places.items()}
        new = [text for text, kept in known.items() if kept is None]
        starts = range(0, len(new), _BATCH)
        for start in progress(starts, desc="texts", unit="batch", leave=False, delay=2):
            part = new[start : start + _BATCH]
            tokens = self._tokens([*part, *[""] * (_BATCH - len(part))])  # one program for all
            for text, embedding in zip(part, np.asarray(self._tower(tokens)), strict=False):
                known[text] = {"embedding": embedding}
                with files.replacing(places[text]) as temporary, temporary.open("wb") as file:
                    np.savez(file, embedding=embedding)
        return np.stack([kept["embedding"] for text in texts if (kept := known[text])])

    @functools.cached_property
    def _config(self) -> tuple[TextConfig, str]:
        told = None
        if self.settings.is_file():
            told = parse_json(self.settings.read_bytes(), self.settings, WeightsError)
            told = told.get("text_config") if isinstance(told, dict) else told
            if not isinstance(told, dict | None):
                raise WeightsError(f"{self.settings}: text_config is no JSON object")
        found = config_of(self.arrays, told or {})
        if found is None:
            raise WeightsError(
                f"{self.path}: holds no text tower",
                "CLIP's and SigLIP's whole files in the names of OpenAI or Hugging Face have one.",
            )
        return found

    @functools.cached_property
    def _tokens(self) -> Tokenizer:
        return Tokenizer(self.tokenizer, self._config[0])

    @functools.cached_property
    def _tower(self) -> Any:
        config, origin = self._config
        tower, graphdef, shapes = outline(lambda: TextTower(config))
        table = names(tower, config, origin)
        found = foreign.gather(self.arrays, table, by_path(shapes), str(self.path))
        params = jax.device_put(map_by_path(lambda path, _: found[path], shapes))
        return partial(jax.jit(partial(call, graphdef)), params)


def open_texts(source: str | Path) -> Texts:
    """Open what `model.text` names: a model with published towers, or its weights.

    Args:
      source: a name such as `CLIP_vit_base_patch16_224`; or a file, a folder with
        `model.safetensors`, a URL or `hf://owner/name`. `tokenizer.json`, or `spiece.model`, and,
        if there is one, `config.json` lie beside the weights; in a folder of several, as
        `WEIGHTS.tokenizer.json`.

    Raises:
      WeightsError: the weights or the tokenizer are not there.
    """
    text = str(source)
    if known := _published(text):
        path = sources.weight_file(WORDS, text)
        text = known.address
    elif (folder := Path(text)).is_dir():
        path = next((folder / file for file in HUB_FILES if (folder / file).exists()), folder)
    else:
        path = local_file(source)
    if path.is_dir() or not path.exists():
        raise WeightsError(f"{path}: there are no weights", f"They are called {HUB_FILES[0]}.")
    beside = {name: _beside(path, name) for name in ("tokenizer.json", "config.json")}
    if text.startswith(HUB) and not beside["tokenizer.json"].exists():
        repository = text.removesuffix(f"/{path.name}")
        beside = {name: local_file(f"{repository}/{name}") for name in beside}
    tokenizer, settings = beside.values()
    if not tokenizer.exists():
        if not (pieces := _beside(path, PIECES)).exists():
            raise WeightsError(
                f"{tokenizer}: there is no tokenizer beside the weights",
                f"Take it from where the weights come from, or else {PIECES}.",
            )
        tokenizer = pieces
    return Texts(path, tokenizer, settings)


def with_text(model: Model, labels: Sequence[str]) -> Model:
    """Return the model section with a file of its labels' embeddings, if `model.text` asks for it.

    Raises:
      ConfigError: the model has no ML-Decoder, or there is another file already.
      WeightsError: see `open_texts`.
    """
    if model.text is None or model.num_classes is None:
        return model
    if not model.name.endswith(ML_SUFFIX):
        raise ConfigError(f"model.text={model.text}: {model.name} has no ML-Decoder")
    if model.text_embeddings is not None:
        raise ConfigError(
            f"model.text={model.text} and model.text_embeddings={model.text_embeddings}:"
            " only one of them can be meant"
        )
    content = io.BytesIO()
    np.save(content, open_texts(model.text).embed(labels))
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:32]
    path = files.cache_folder("texts") / f"labels-{digest}.npy"
    files.write_bytes(path, content.getvalue())
    return replace(model, text_embeddings=str(path))


def has_texts(name: str) -> bool:
    """Return whether a model of this name, which has no head of another kind, has a text tower."""
    return split_name(name)[1] in ("", WORDS_SUFFIX) and _published(name) is not None


def _published(name: str) -> Source | None:
    """Return where both towers of a model are published; None: nowhere, or no such model."""
    try:
        known = sources.sources(name)
    except ConfigError:
        return None
    return next((source for source in known if source.word == WORDS), None)


def _beside(path: Path, name: str) -> Path:
    own = path.with_name(f"{path.stem}.{name}")
    return own if own.exists() else path.with_name(name)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
