"""Repeat-factor sampling: how often images come, and that everything else is the source's."""

import numpy as np
import pytest

from mlcls_jax.data.sources.repeated import repeat_rare
from mlcls_jax.errors import ConfigError


class Photos:
    labels = ("common", "rare", "never")

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return b"", self.targets[index]

    def name(self, index):
        return f"{index}.png"

    place = name


def photos():
    targets = np.zeros((1000, 3), np.int8)
    targets[:500, 0], targets[490:500, 1] = 1, 1  # on half, and on a hundredth
    targets[500:600, 0] = -1
    return Photos(targets)


def test_images_of_a_rare_label_come_as_often_as_its_square_root_asks():
    source = photos()
    repeated = repeat_rare(source, 0.0625, seed=1)
    names = [repeated.name(i) for i in range(len(repeated))]
    copies = np.array([names.count(f"{i}.png") for i in range(1000)])
    rare = source.targets[:, 1] == 1
    assert (copies[~rare] == 1).all()
    assert set(copies[rare]) == {2, 3}  # sqrt(0.0625 / 0.01) is 2.5
    place = names.index("495.png")
    np.testing.assert_array_equal(repeated[place][1], source.targets[495])
    assert (repeated.labels, repeated.place(place)) == (source.labels, "495.png")


def test_the_seed_decides_of_fractions():
    tables = [repeat_rare(photos(), 0.0625, seed=seed).table for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


def test_nothing_is_repeated_unless_asked_for_and_known():
    source = photos()
    assert repeat_rare(source, 0.0, seed=0) is source
    del source.targets
    with pytest.raises(ConfigError, match=r"data.repeat_below=0.1: needs to know"):
        repeat_rare(source, 0.1, seed=0)
