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
    """Part int64 [G], 0 … len(shares) - 1, of each of G groups of images.

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
    whole = sum(shares)  # images are counted in this many pieces, so that all numbers are whole
    left = _sizes(sum(weights), shares)  # room in each part
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(weights)).tolist()
    order.sort(key=lambda group: -weights[group])  # large ones fit only while there is room
    members: dict[int, list[int]] = {}  # label → groups that have it
    count: Counter[int] = Counter()  # label → images that have it and are not dealt out
    for group in order:
        count.update(labels[group])
        for label in labels[group]:
            members.setdefault(label, []).append(group)
    # label → pieces of images with it that each part still lacks
    lacking = {label: [count[label] * share for share in shares] for label in members}
    rarest = [(images, label) for label, images in count.items()]
    heapq.heapify(rarest)
    part = [-1] * len(weights)

    def fitting(group: int) -> list[int]:
        parts = range(len(left))
        fit = [j for j in parts if left[j] >= weights[group]]
        return fit or [j for j in parts if left[j] > 0]

    def put(group: int, chosen: int) -> None:
        part[group] = chosen
        left[chosen] -= weights[group]
        for label, images in labels[group].items():
            lacking[label][chosen] -= images * whole
            count[label] -= images
            heapq.heappush(rarest, (count[label], label))

    while rarest:
        images, label = heapq.heappop(rarest)
        if images != count[label] or label not in members:
            continue  # its count has fallen since
        lack = lacking[label]
        for group in members.pop(label):
            if part[group] >= 0:
                continue
            parts = fitting(group)
            chosen = max(parts, key=lambda j: (lack[j], left[j]))
            if lack[chosen] < labels[group][label] * whole:
                rest = sum(left)
                chosen = max(parts, key=lambda j: (lack[j] > 0, left[j] * whole - shares[j] * rest))
            put(group, chosen)
    for group in order:
        if part[group] < 0:
            put(group, max(fitting(group), key=lambda j: left[j]))
    return np.array(part, np.int64)


def _sizes(total: int, shares: Sequence[int]) -> list[int]:
    """`total` images by shares; what is left over goes to the largest fractions."""
    sizes, fractions = zip(*(divmod(total * share, sum(shares)) for share in shares), strict=True)
    by_fraction = sorted(range(len(shares)), key=lambda j: -fractions[j])
    extra = by_fraction[: total - sum(sizes)]
    return [size + (j in extra) for j, size in enumerate(sizes)]
