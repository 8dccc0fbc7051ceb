"""Labels that imply or exclude others: parents, and groups of which an image has one at most.

Everything that knows of them asks here: the network's answers (`consistent`), targets of the data
(`close`), the loss, thresholds and reports.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int8

from mlcls_jax.errors import ConfigError

if TYPE_CHECKING:  # imports JAX
    from jaxtyping import Array

NONE = -1  # no parent, or no group
LEVELS = 32  # of ancestors
MOST = 4_096  # labels in groups: each is compared with each

_RANK = {0: 0, -1: 1, 1: 2}  # of values of a target: absent, not sure, present
_LARGEST = 60.0  # logits above it exclude others no more; exp of it, times labels, is still finite


@dataclass(frozen=True)
class Groups:
    """By label, the index of its parent and the number of its exclusive group; -1 for none."""

    parents: tuple[int, ...] = ()
    exclusive: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return any(number != NONE for number in (*self.parents, *self.exclusive))

    @cached_property
    def order(self) -> list[tuple[int, int]]:
        """The pairs (label, parent), those nearer to the root first."""
        pairs = ((k, parent) for k, parent in enumerate(self.parents) if parent != NONE)
        return sorted(pairs, key=lambda pair: (sum(1 for _ in self.ancestors(pair[0])), pair))

    @cached_property
    def members(self) -> list[np.ndarray]:
        """The labels of each exclusive group, by its number."""
        numbers = np.array(self.exclusive, int)
        return [np.flatnonzero(numbers == group) for group in np.unique(numbers[numbers != NONE])]

    def is_grouped(self, num_classes: int) -> Bool[np.ndarray, " K"]:
        """Return which of so many labels are in an exclusive group."""
        return np.array(self.exclusive or (NONE,) * num_classes) != NONE

    def ancestors(self, label: int) -> Iterator[int]:
        """Yield the parent of a label, its parent, and so on."""
        while self.parents and (label := self.parents[label]) != NONE:
            yield label

    def check(self, num_classes: int) -> "Groups":
        """Return the same.

        Raises:
          ConfigError: they are not of so many labels, or a label's ancestors never end.
        """
        for name in ("parents", "exclusive"):
            numbers = getattr(self, name)
            if numbers and len(numbers) != num_classes:
                raise ConfigError(f"model.{name}: {len(numbers)} numbers for {num_classes} labels")
        for label, parent in enumerate(self.parents):
            if not NONE <= parent < num_classes:
                raise ConfigError(f"model.parents: {parent} of label {label} is no other label")
        if (label := endless(self.parents)) is not None:
            raise ConfigError(
                f"model.parents: the way up from label {label} does not end within {LEVELS} levels"
            )
        if (count := sum(map(len, self.members))) > MOST:
            raise ConfigError(
                f"model.exclusive: {count:,} labels exclude others: at most {MOST:,} can",
                "Where an image has one of all labels, take model.task=single.",
            )
        return self


NO_GROUPS = Groups()


def endless(parents: Sequence[int]) -> int | None:
    """Return a label whose way up does not end within `LEVELS`, a circle for instance."""
    for label in range(len(parents)):
        above, steps = parents[label], 0
        while above != NONE and steps <= LEVELS:
            above, steps = parents[above], steps + 1
        if above != NONE:
            return label
    return None


def consistent(
    logits: "Float[Array, 'B K']", groups: Groups, *, train: bool = False
) -> "Float[Array, 'B K']":
    """Return logits whose sigmoids agree with the groups.

    In an exclusive group they are those of a softmax over its labels and "none of them", whose
    logit is 0, and add up to less than 1. A label's logit is then at most those of its ancestors;
    but with `train` it is its own: an absent label that is capped would be unlearnt by its parent,
    which may be present.
    """
    logits = _exclusive(logits, groups)
    return logits if train else _capped(logits, groups)


def _exclusive(logits: "Float[Array, 'B K']", groups: Groups) -> "Float[Array, 'B K']":
    if not groups.members:
        return logits
    import jax.numpy as jnp  # helps, which import the reader of lists, do without

    numbers = np.array(groups.exclusive)
    grouped = np.concatenate(groups.members)
    # [G, K]: of the labels in groups, which ones take from a label's share
    rivals = numbers[grouped][:, None] == numbers
    rivals[np.arange(len(grouped)), grouped] = False
    shares = jnp.exp(jnp.minimum(jnp.take(logits, grouped, axis=1, mode="clip"), _LARGEST))
    others = jnp.matmul(shares, rivals.astype(logits.dtype), precision="highest")
    return logits - jnp.log(1 + others)


def _capped(logits: "Float[Array, 'B K']", groups: Groups) -> "Float[Array, 'B K']":
    if not groups.order:
        return logits
    import jax.numpy as jnp

    above = np.array([k if p == NONE else p for k, p in enumerate(groups.parents)])
    for _ in range(max(sum(1 for _ in groups.ancestors(label)) for label, _ in groups.order)):
        logits = jnp.minimum(logits, jnp.take(logits, above, axis=1, mode="clip"))
    return logits


def close(targets: Int8[np.ndarray, "N K"], groups: Groups) -> Bool[np.ndarray, " N"]:
    """Fill in, in place, what the groups say of targets; return which rows contradicted them.

    A label that is present makes its ancestors present, whatever was written, and the others of
    its exclusive group, if nobody looked at them, absent. A label that is absent makes its
    descendants absent if nobody looked at them. Two of one group stay as they are.
    """
    wrong = np.zeros(len(targets), bool)
    for label, parent in reversed(groups.order):
        present = targets[:, label] == 1
        wrong |= present & (targets[:, parent] == 0)
        targets[present, parent] = 1
    for members in groups.members:
        part = targets[:, members]
        count = (part == 1).sum(1)
        wrong |= count > 1
        part[(part < 0) & (count > 0)[:, None]] = 0
        targets[:, members] = part
    for label, parent in groups.order:
        targets[(targets[:, label] < 0) & (targets[:, parent] == 0), label] = 0
    return wrong


def implied(
    target: Int8[np.ndarray, " K"], label: int, value: int, groups: Groups
) -> dict[int, int]:
    """Return which other values a target takes when somebody sets a label: {label: value}.

    Of absent, not sure and present, in this order, no label has more than its parent: ancestors
    rise with it, descendants fall. What becomes present makes the others of its exclusive group,
    and their descendants, absent.
    """
    path = [label, *groups.ancestors(label)]
    risen = {k: value for k in path[1:] if _RANK[int(target[k])] < _RANK[value]}
    fallen = {label: value}
    for members in map(set, groups.members) if value == 1 else ():
        if members & {label, *risen}:
            fallen |= {int(k): 0 for k in members.difference(path) if target[k] != 0}
    for below, parent in groups.order:
        most = fallen.get(parent)
        if most is not None and _RANK[int(target[below])] > _RANK[most]:
            fallen[below] = most
    del fallen[label]
    return risen | fallen


def contradictions(
    labels: Sequence[str], present: Sequence[int], absent: Bool[np.ndarray, " K"], groups: Groups
) -> Iterator[str]:
    """Yield what an image's labels say against the groups, in words.

    Args:
      labels: names of all.
      present: indices of those that the image has.
      absent: which it is said not to have.
      groups: of the labels.
    """
    for label in present:
        for parent in groups.ancestors(label):
            if absent[parent]:
                yield f"has {labels[label]!r}, but not {labels[parent]!r}, of which it is a kind"
    closed = {*present} | {ancestor for label in present for ancestor in groups.ancestors(label)}
    for members in groups.members:
        if len(both := [labels[k] for k in members if k in closed]) > 1:
            yield f"has {' and '.join(map(repr, both))}, of which there can be one only"


def ordered_thresholds(
    thresholds: Float[np.ndarray, " K"], groups: Groups, *, is_lowered: bool
) -> Float[np.ndarray, " K"]:
    """Return thresholds under which no label is reported without its parent.

    A label's is raised to its parent's; or, with `is_lowered`, a parent's lowered to its labels',
    which takes nothing from the recall of either.
    """
    ordered = thresholds.copy()
    for label, parent in reversed(groups.order) if is_lowered else groups.order:
        if is_lowered:
            ordered[parent] = min(ordered[parent], ordered[label])
        else:
            ordered[label] = max(ordered[parent], ordered[label])
    return ordered


def inconsistent(decisions: Bool[np.ndarray, "N K"], groups: Groups) -> Bool[np.ndarray, " N"]:
    """Return which rows have a label without its parent, or two of an exclusive group."""
    wrong = np.zeros(len(decisions), bool)
    for label, parent in groups.order:
        wrong |= decisions[:, label] & ~decisions[:, parent]
    for members in groups.members:
        wrong |= decisions[:, members].sum(1) > 1
    return wrong
