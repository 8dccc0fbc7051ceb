"""A model for other labels: those that stay, are renamed, merged or split keep their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.errors import ConfigError, unknown
from mlcls_jax.models.initial import draw
from mlcls_jax.models.network import Model, Network, flatten, unflatten
from mlcls_jax.models.texts import open_texts

TEXT_EMBED = "head/text_embed"
# What a configuration says of the labels that there were.
_FORGOTTEN: dict[str, Any] = {"text_embeddings": None, "parents": (), "exclusive": ()}


def with_labels(
    model: Model,
    labels: np.ndarray | Sequence[str],
    *,
    old: Sequence[str] = (),
    origins: Mapping[str, str | Sequence[str]] | None = None,
    text: str | Path | None = None,
    seed: int = 0,
) -> Model:
    """Return the same model for other labels.

    A label of the same name keeps its query and weights, so that its logits stay what they are
    (but with self-attention between queries: `self_attention`, or `decoder_depth` above 1). A new
    one begins at random, or, where queries are made from text, with its own embedding: how well it
    is separated depends on the embeddings, since the head has learnt the meaning of their
    directions only as far as the labels of the training span them.

    Args:
      model: any; for embeddings, or with `text`, one whose ML-Decoder queries come from text.
      labels: the new labels in their order; or [labels, size], embeddings from the encoder that
        made those of the training labels.
      old: the labels that the model has, in their order.
      origins: new label → old one that it was called, or was a part of (renamed, split), or several
        of which it takes the mean (merged).
      text: the tower that embeds new labels, as `model.text` has it.
      seed: of what begins at random.

    Raises:
      ValueError: the model's queries are not made from text, or the embeddings have another size.
      ConfigError: `old` is not the model's, an origin is no old label, or `text` is needed.

    Example:
      >>> from mlcls_jax.models import create
      >>> model = create("PP-LCNet_x0_25", num_classes=2, image_size=32)
      >>> wider = with_labels(model, ["pup", "snow", "cat"], old=["dog", "cat"],
      ...                     origins={"pup": "dog"})
      >>> wider(np.zeros((1, 32, 32, 3), np.uint8)).shape
      (1, 3)
    """
    config = model.network.config
    if isinstance(labels, np.ndarray):
        return with_embeddings(model, labels)
    rows = _rows(labels, old, origins or {}, config)
    most = max(len(labels), len(old) + 1)
    arrays = flatten(model.variables)
    # One query a label: labels that shared one would share it with others from now on.
    config = replace(config, query_num=most, **_FORGOTTEN)
    arrays |= _ungrouped({path: np.asarray(a) for path, a in arrays.items() if "head/" in path})
    before, more, after = (
        Network.of(replace(config, num_classes=count))
        for count in (len(old), len(old) + 1, len(labels))
    )
    shapes, wider, wanted = (flatten(network.abstract) for network in (before, more, after))
    new = [label for label, row in zip(labels, rows, strict=True) if not row]
    for path, leaf in shapes.items():
        axis = next((i for i, n in enumerate(leaf.shape) if n != wider[path].shape[i]), None)
        if axis is None:
            continue
        if path == TEXT_EMBED and new:
            begun = _embedded(labels, text)
        else:
            begun = draw(path, wanted[path].shape, after.initial[path], seed=seed)
        theirs, begun = np.moveaxis(arrays[path], axis, 0), np.moveaxis(begun, axis, 0)
        parts = [theirs[row].mean(0) if row else begun[i] for i, row in enumerate(rows)]
        arrays[path] = jnp.asarray(np.moveaxis(np.stack(parts), 0, axis), leaf.dtype)
    return Model(after, unflatten(arrays, after.abstract))


def with_embeddings(model: Model, embeddings: np.ndarray) -> Model:
    """Return the same model for labels of these embeddings; see `with_labels`."""
    config, shape = model.network.config, embeddings.shape
    if config.text_dim is None:
        raise ValueError(f"{config.name}: its queries are not made from text embeddings")
    if len(shape) != 2 or shape[1] != config.text_dim:
        raise ValueError(f"text_embeddings must be [labels, {config.text_dim}], not {shape}")
    network = Network.of(replace(config, num_classes=shape[0], **_FORGOTTEN))
    arrays = flatten(model.variables) | {TEXT_EMBED: jnp.asarray(embeddings)}
    return Model(network, unflatten(arrays, network.abstract))


def _rows(
    labels: Sequence[str],
    old: Sequence[str],
    origins: Mapping[str, str | Sequence[str]],
    config: ModelConfig,
) -> list[list[int]]:
    """Return for each label the old ones that it is made of."""
    if len(old) != config.num_classes:
        raise ConfigError(f"old: there are {len(old)}, but the model has {config.num_classes}")
    places = {label: index for index, label in enumerate(old)}
    rows = []
    for label in labels:
        named = origins.get(label, label if label in places else ())
        named = (named,) if isinstance(named, str) else named
        for name in named:
            if name not in places:
                raise ConfigError(unknown(f"origins[{label!r}]", "old label", name, list(old)))
        rows.append([places[name] for name in named])
    return rows


def _ungrouped(head: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the arrays of an ML-Decoder in which each label has a query of its own."""
    if "head/query_embed" not in head or "head/group_kernel" not in head:
        return head
    kernel = head["head/group_kernel"]  # [Q, D, g]
    count, size = len(head["head/query_embed"]), kernel.shape[2]
    return head | {
        "head/query_embed": np.repeat(head["head/query_embed"], size, axis=0),
        "head/group_kernel": kernel.transpose(0, 2, 1).reshape(count * size, -1, 1),
    }


def _embedded(labels: Sequence[str], text: str | Path | None) -> np.ndarray:
    if text is None:
        raise ConfigError(
            "text: the queries are made from texts, and some labels are new",
            "Name the tower that made those of the training, as model.text does.",
        )
    return open_texts(text).embed(labels)
