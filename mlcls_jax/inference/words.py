"""Labels given as words: bundles made of the towers of images and texts, with no training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from mlcls_jax.config import DEFAULT_THRESHOLD, model_from_dict
from mlcls_jax.data.frame import Frame
from mlcls_jax.errors import InputError
from mlcls_jax.inference.bundle import Bundle
from mlcls_jax.models.network import Model, Network, flatten, unflatten
from mlcls_jax.models.registry import WORDS_SUFFIX, find_variant
from mlcls_jax.models.texts import PLAIN, TEMPLATES, Texts
from mlcls_jax.models.weights.foreign import fill


@dataclass(frozen=True)
class Words:
    """Both towers, opened: what makes a bundle of any labels."""

    texts: Texts
    model: Model  # of images; its head has numbers for no label yet
    frame: Frame

    def bundle(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = TEMPLATES,
        task: str = "multilabel",
    ) -> Bundle:
        """Return the bundle of these labels, which is one like any other.

        Args:
          labels: texts, such as `a dog`; none: a bundle that can only be asked with labels.
          templates: prompts with {} for the label; their embeddings are averaged.
          task: multilabel: each label has a score of its own, SigLIP's as it was trained, CLIP's by
            comparison with the text "a photo."; single: the scores of a picture add up to 1.

        Raises:
          InputError: a label is there twice or empty, or a template has no {}.
          WeightsError: the text tower or its tokenizer cannot be read.
        """
        if len(set(labels)) < len(labels):
            raise InputError(f"labels: {', '.join(labels)}: one is there twice")
        config = replace(self.model.network.config, num_classes=len(labels) or 1, task=task)
        network = Network.of(config)
        arrays = flatten(self.model.variables)
        shapes = flatten(network.abstract)
        scale, bias = self.texts.scale_and_bias()
        kernel = np.zeros(shapes["head/kernel"].shape, np.float32)
        if labels:
            embeddings = self.texts.embed(labels, templates)
            if self.texts.kind == "clip" and task == "multilabel":
                embeddings = embeddings - self.texts.embed([PLAIN], ["{}"])
            kernel = (scale * embeddings).T
        arrays["head/kernel"] = jnp.asarray(kernel, jnp.float32)
        arrays["head/bias"] = jnp.full(shapes["head/bias"].shape, bias, jnp.float32)
        return Bundle(
            Model(network, unflatten(arrays, network.abstract)),
            tuple(labels),
            None if task == "single" else DEFAULT_THRESHOLD,
            {"weights": str(self.texts.path)},
            self.frame,
            relabel=partial(self.bundle, task=task),
        )


def open_words(name: str, texts: Texts) -> Words:
    """Open the towers of a file; `name` is that of the images' tower, without its head.

    Images have the size that the tower was trained on. As by the originals, CLIP sees the middle of
    a picture, SigLIP all of it.

    Raises:
      ConfigError: there is no such model, or it has other options.
      WeightsError: the file is not that model's.
    """
    family, variant = find_variant(name)
    name = f"{family.words(variant)}{WORDS_SUFFIX}"
    family, variant = find_variant(name)
    channels = family.variants[variant].width
    projection = texts.image_projection(channels)
    values = {"name": name, "num_classes": 1, "text_dim": projection.shape[1], "image_size": 224}
    network = Network.of(model_from_dict(values | texts.activation))
    model = Model(network, network.abstract)
    fill(model, texts.arrays, str(texts.path))
    arrays = flatten(model.variables) | {"head/proj": jnp.asarray(projection)}
    config = model.network.config
    grid = config.position_grid or family.variants[variant].grid
    side = grid * family.variants[variant].patch_size
    frame = Frame((side, side), "crop", side) if texts.kind == "clip" else Frame((side, side))
    network = Network.of(replace(config, image_size=frame.size))
    return Words(texts, Model(network, unflatten(arrays, network.abstract)), frame)
