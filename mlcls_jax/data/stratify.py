"""Dividing images so that every label keeps its share in each part."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def divide(
    labels: Sequence[Mapping[int, int]],
    weights: Sequence[int],
    shares: Sequence[int],
    *,
    seed: int,
) -> np.ndarray:
    """Return the part, int64 [G] in 0 … len(shares) - 1, of each of G groups of images.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011: On the stratification of
    multi-label data, algorithm 1): the rarest label left is dealt out first, to the part that
    lacks most of it. Two things are added. Where all lack less than one image, the part that is
    furthest behind as a whole gets it; always the same one would gain otherwise. And a full part
    gets nothing more: without groups every part has its share of the images, rounded.

    Args:
      labels: label → number of images that have it, of each group; empty: divide at random.
      weights: images of each group.
      shares: proportions of the parts, adding to any sum.
      seed: fixes what is left to chance.
    """
    return _Dealer(labels, weights, shares, seed).deal()


class _Dealer:
    """Groups that are dealt out to parts, and what each part still lacks.

    Images are counted in `whole` pieces each, so that all numbers are whole.
    """

    def __init__(
        self,
        labels: Sequence[Mapping[int, int]],
        weights: Sequence[int],
        shares: Sequence[int],
        seed: int,
    ) -> None:
        self.labels, self.weights, self.shares = labels, weights, shares
        self.whole = sum(shares)
        self.left = _sizes(sum(weights), shares)  # room in each part
        self.part = [-1] * len(weights)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(weights)).tolist()
        # Large ones first: they fit only while there is room.
        self.order: list[int] = sorted(order, key=lambda group: -weights[group])
        self.members: dict[int, list[int]] = {}  # label → groups that have it
        self.count: Counter[int] = Counter()  # label → images that have it and are not dealt out
        for group in self.order:
            self.count.update(labels[group])
            for label in labels[group]:
                self.members.setdefault(label, []).append(group)
        # label → pieces of images with it that each part still lacks
        self.lacking = {
            label: [self.count[label] * share for share in shares] for label in self.members
        }
        self.rarest = [(images, label) for label, images in self.count.items()]
        heapq.heapify(self.rarest)

    def deal(self) -> np.ndarray:
        """Deal all groups out; return the part of each, int64 [G]."""
        while self.rarest:
            images, label = heapq.heappop(self.rarest)
            if images != self.count[label] or label not in self.members:
                continue  # its count has fallen since
            for group in self.members.pop(label):
                if self.part[group] < 0:
                    self._put(group, self._choose(group, label))
        for group in self.order:
            if self.part[group] < 0:
                self._put(group, max(self._fitting(group), key=lambda j: self.left[j]))
        return np.array(self.part, np.int64)

    def _choose(self, group: int, label: int) -> int:
        """Return the part that lacks most of the label, or that is furthest behind as a whole."""
        left, lack, parts = self.left, self.lacking[label], self._fitting(group)
        chosen = max(parts, key=lambda j: (lack[j], left[j]))
        if lack[chosen] >= self.labels[group][label] * self.whole:
            return chosen
        rest = sum(left)
        behind = [left[j] * self.whole - self.shares[j] * rest for j in range(len(left))]
        return max(parts, key=lambda j: (lack[j] > 0, behind[j]))

    def _fitting(self, group: int) -> list[int]:
        parts = range(len(self.left))
        fit = [j for j in parts if self.left[j] >= self.weights[group]]
        return fit or [j for j in parts if self.left[j] > 0]

    def _put(self, group: int, chosen: int) -> None:
        self.part[group] = chosen
        self.left[chosen] -= self.weights[group]
        for label, images in self.labels[group].items():
            self.lacking[label][chosen] -= images * self.whole
            self.count[label] -= images
            heapq.heappush(self.rarest, (self.count[label], label))


def _sizes(total: int, shares: Sequence[int]) -> list[int]:
    """Divide `total` images by shares; what is left over goes to the largest fractions."""
    sizes, fractions = zip(*(divmod(total * share, sum(shares)) for share in shares), strict=True)
    by_fraction = sorted(range(len(shares)), key=lambda j: -fractions[j])
    extra = by_fraction[: total - sum(sizes)]
    return [size + (j in extra) for j, size in enumerate(sizes)]
