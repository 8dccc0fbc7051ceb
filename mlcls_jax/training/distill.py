"""Knowledge distillation: a student learns from a teacher's scores besides the targets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mlcls_jax import config as schema
from mlcls_jax.losses import cross_entropy, multilabel_loss
from mlcls_jax.models.network import Network, Outputs, Variables
from mlcls_jax.training.loss import is_summed
from mlcls_jax.training.parts import join, split

# (student's logits [B, K], teacher's logits [B, K], mask [B]) → scalar
ScoreLoss = Callable[[Array, Array, Array], Float[Array, ""]]


class Compared(NamedTuple):
    """The part of a model's outputs that student and teacher are compared by."""

    logits: Float[Array, "B K"]
    features: Float[Array, "B C"] | None = None  # mean over the feature map, where it is needed


@dataclass(frozen=True)
class Distillation:
    """The teacher without its numbers, and the weight of each part of its loss."""

    teacher: Network
    image_size: tuple[int, int]  # that the teacher takes
    score_loss: ScoreLoss
    weight: float
    temperature: float
    features: float

    def teach(self, variables: Variables, images: Shaped[Array, "B H W 3"]) -> Compared:
        """Return the teacher's outputs in evaluation; images of another size are resized."""
        return self.compared(self.teacher.apply(variables, _resized(images, self.image_size)))

    def compared(self, outputs: Outputs) -> Compared:
        """Return the logits and, if the loss asks for them, the pooled features."""
        if not self.features:
            return Compared(outputs.logits)
        return Compared(outputs.logits, outputs.features.mean((1, 2), dtype=outputs.logits.dtype))

    def objective(
        self,
        target_loss: Callable[[Array], Array],
        variables: Variables,
        images: Shaped[Array, "B H W 3"],
        mask: Shaped[Array, " B"],
        count: int,
    ) -> Callable[[Compared], Float[Array, ""]]:
        """Return the loss of the student's outputs for these images, which the teacher is shown.

        Args:
          target_loss: of the student's logits [B, K].
          variables: the teacher's.
          images: the whole batch.
          mask: False for padding.
          count: parts that the teacher is shown one after the other.
        """
        if count == 1:
            taught = self.teach(variables, images)
        else:
            taught = join(jax.lax.map(partial(self.teach, variables), split(images, count)))
        return lambda student: self.loss(target_loss(student.logits), student, taught, mask)

    def loss(
        self,
        target_loss: Float[Array, ""],
        student: Compared,
        teacher: Compared,
        mask: Shaped[Array, " B"],
    ) -> Float[Array, ""]:
        """Return (1 - weight) · loss of the targets + weight · T² · loss of the scores at T.

        Hinton et al. (2015): T² keeps the gradient's size the same for every temperature T.
        `features` · `similarity_loss` is added.
        """
        scale = 1 / self.temperature
        scores = self.score_loss(student.logits * scale, teacher.logits * scale, mask)
        total = (1 - self.weight) * target_loss + self.weight * self.temperature**2 * scores
        if student.features is not None and teacher.features is not None:
            total += self.features * similarity_loss(student.features, teacher.features, mask)
        return total


def make_distillation(config: schema.Distill, loss: schema.Loss, teacher: Network) -> Distillation:
    """Return the distillation of `config`, which reduces scores as `loss` reduces targets."""
    return Distillation(
        teacher=teacher,
        image_size=teacher.config.image_size,
        score_loss=_score_loss(loss),
        weight=config.weight,
        temperature=config.temperature,
        features=config.features,
    )


def similarity_loss(
    student: Float[Array, "B C"], teacher: Float[Array, "B D"], mask: Shaped[Array, " B"]
) -> Float[Array, ""]:
    """Return the mean squared difference, over pairs of images, of their cosine similarities.

    Similarity-preserving distillation (Tung & Mori, 2019): widths may differ, since images are
    compared with images and not features with features, so that there is no projection to learn
    and save. The paper scales rows of the similarity matrix; here each image's features have
    length 1, so that a pair's share does not depend on the rest of the batch.
    """
    weights = mask.astype(student.dtype)
    pairs = weights[:, None] * weights  # [B, B]
    difference = _similarities(student, weights) - _similarities(teacher, weights)
    return jnp.sum(pairs * difference**2) / jnp.maximum(jnp.sum(pairs), 1)


def _similarities(features: Array, weights: Array) -> Float[Array, "B B"]:
    features = jnp.where(weights[:, None] != 0, features, 0)  # padding may hold NaN
    square = jnp.sum(features**2, axis=-1, keepdims=True)
    features = features * jax.lax.rsqrt(square + 1e-12)  # a root of 0 has no gradient
    return features @ features.T


def _score_loss(loss: schema.Loss) -> ScoreLoss:
    """Return binary cross-entropy, or for a single label the Kullback-Leibler divergence.

    The teacher speaks for entries that are not annotated as well: all count, in rows that are not
    padding. Sums and means are those of the targets' loss, so that `weight` weighs like with like.
    """
    if loss.name == "cross_entropy":
        return _divergence
    sums_rows = is_summed(loss)
    sums_labels = sums_rows or (loss.name == "multilabel" and loss.size_sum)

    def binary(student: Array, teacher: Array, mask: Array) -> Array:
        mean = multilabel_loss(student, jax.nn.sigmoid(teacher), size_sum=sums_labels, mask=mask)
        return mean * mask.sum() if sums_rows else mean

    return binary


def _divergence(student: Array, teacher: Array, mask: Array) -> Float[Array, ""]:
    shares = jax.nn.softmax(teacher)
    return cross_entropy(student, shares, mask=mask) - cross_entropy(teacher, shares, mask=mask)


def _resized(images: Shaped[Array, "B H W 3"], size: tuple[int, int]) -> Array:
    """Resize bilinearly with antialiasing; uint8 stays uint8, which the network normalises."""
    if images.shape[1:3] == size:
        return images
    shape = (images.shape[0], *size, 3)
    if images.dtype != jnp.uint8:
        return jax.image.resize(images, shape, "linear")
    resized = jax.image.resize(images.astype(jnp.float32), shape, "linear")
    return jnp.rint(resized).astype(jnp.uint8)
