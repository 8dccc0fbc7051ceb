"""Augmentation: RandAugmentV4's operations against the original's, and what chance may do."""

import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from test_images import image_for

from mlcls_jax.data import augment
from mlcls_jax.data.augment import (
    AUGMENTATIONS,
    OPERATIONS,
    augmentations,
    cutout,
    magnitude,
    rand_augment_v4,
)
from mlcls_jax.errors import ConfigError

GOLDENS = np.load(Path(__file__).parent / "data" / "paddle" / "randaug_v4_ops.npz")
SEED = int(GOLDENS["seed"])
SIZES = [(1, 1), (1, 7), (5, 1), (2, 3), (37, 23), (96, 128)]


def picture(height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    image = image_for(96, 128, index=0, seed=SEED)
    assert zlib.crc32(image.tobytes()) == GOLDENS["src_crc32"]
    return image


@pytest.mark.parametrize(("index", "sign"), [*product((1, 4, 5, 9), "+-")])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_the_originals_bit_for_bit(source, name, index, sign):
    golden, operation = f"{name}/{index}/{sign}", OPERATIONS[name]
    strength = magnitude(name, index)
    assert strength == GOLDENS[f"{golden}/magnitude"]
    # The original turns one way only, whatever the sign.
    if sign == "-" and operation.drawn == "sign" and name != "rotate":
        strength = -strength
    chance = {}
    if operation.drawn == "centre":
        drawn = np.random.RandomState(SEED)  # what np.random.seed seeds
        height, width, _ = source.shape
        chance["centre"] = (drawn.randint(0, height + 1), drawn.randint(0, width + 1))
    changed = operation.apply(source, strength, **chance)
    np.testing.assert_array_equal(changed[3::13, 5::17], GOLDENS[f"{golden}/grid"])
    assert zlib.crc32(changed.tobytes()) == GOLDENS[f"{golden}/crc32"]


def test_goldens_cover_every_operation():
    assert {key.split("/")[0] for key in GOLDENS if "/" in key} == set(OPERATIONS)
    assert len(OPERATIONS) == 15


def test_magnitudes_at_every_index():
    halves = [magnitude("cutout", i) for i in range(1, 10)]
    assert halves == [2, 4, 7, 9, 11, 13, 16, 18, 20]
    assert [magnitude("posterize", i) for i in range(1, 10)] == [8, 7, 7, 6, 6, 5, 5, 4, 4]
    for index in (0, 10):
        with pytest.raises(ValueError, match="1..9"):
            magnitude("rotate", index)


def test_negative_rotation_turns_clockwise():
    image = np.zeros((21, 21, 3), np.uint8)
    image[2, 10] = 255  # above the centre
    for degrees, side in ((30, slice(0, 10)), (-30, slice(11, 21))):
        turned = augment.rotate(image, degrees)
        assert (turned[:8, side] == 255).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_shape_type_and_input(name, size):
    image = picture(*size)
    before = image.copy()
    image.flags.writeable = False
    chance = {"centre": (0, 0)} if OPERATIONS[name].drawn == "centre" else {}
    for index in range(1, 10):
        changed = OPERATIONS[name].apply(image, magnitude(name, index), **chance)
        assert changed.shape == image.shape and changed.dtype == np.uint8
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_shape_type_and_input_and_follow_the_generator(name, size):
    image = picture(*size)
    before = image.copy()
    image.flags.writeable = False
    for seed in range(30):
        one, other = (AUGMENTATIONS[name](image, np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == image.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(image, before)


@pytest.fixture
def applied(monkeypatch) -> list[tuple]:
    """Operations leave the image alone and note their name, index, sign and centre here."""
    calls = []

    def noting(name):
        def note(image, strength, centre=None):
            calls.append((name, int(abs(strength)), int(np.sign(strength)), centre))
            return image

        return note

    noted = {
        name: operation._replace(apply=noting(name), magnitudes=np.arange(10))
        for name, operation in OPERATIONS.items()
    }
    monkeypatch.setattr(augment, "OPERATIONS", noted)
    return calls


def test_two_operations_of_equal_chances_each_applied_half_the_time(applied):
    image, rng, draws = picture(6, 9), np.random.default_rng(1), 20_000
    counts = np.zeros(3)
    for _ in range(draws):
        before = len(applied)
        rand_augment_v4(image, rng)
        counts[len(applied) - before] += 1
    np.testing.assert_allclose(counts / draws, [0.25, 0.5, 0.25], atol=0.015)

    pairs = {(name, index): 0 for name in OPERATIONS for index in range(1, 10)}
    for name, index, _, _ in applied:
        pairs[name, index] += 1
    # 148 each; five standard deviations
    np.testing.assert_allclose(list(pairs.values()), len(applied) / 135, atol=5 * 12.2)

    for name in OPERATIONS:
        signs = [sign for one, _, sign, _ in applied if one == name]
        share = np.mean(np.array(signs) < 0)
        assert abs(share - (0.5 if OPERATIONS[name].drawn == "sign" else 0)) < 0.07

    centres = {centre for name, _, _, centre in applied if name == "cutout"}
    assert centres == set(product(range(7), range(10)))


def test_without_an_operation_the_image_is_as_it_was():
    image = picture()
    same = [rand_augment_v4(image, np.random.default_rng(s)) is image for s in range(400)]
    assert 0.17 < np.mean(same) < 0.33


def painted(image: np.ndarray, changed: np.ndarray) -> tuple[int, int, int, int]:
    """The first and last row and column that differ; between them there is one colour only."""
    rows, columns = np.nonzero((image != changed).any(-1))
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    box = changed[top : bottom + 1, left : right + 1].reshape(-1, 3)
    assert (box == box[0]).all()
    outside = np.ones(image.shape[:2], bool)
    outside[top : bottom + 1, left : right + 1] = False
    np.testing.assert_array_equal(image[outside], changed[outside])
    return top, bottom, left, right


def test_cutout_paints_one_box_of_one_colour_with_both_ends():
    image, rng = picture(48, 64), np.random.default_rng(0)
    image[..., 0] = np.arange(64)  # neighbours differ
    boxes = np.array([painted(image, cutout(image, rng, length=24)) for _ in range(300)])
    heights, widths = (boxes[:, 1] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 2] + 1)
    # A centre on the border still leaves half the square.
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (13, 25, 13, 25)
    assert boxes.min(0).tolist() == [0, 12, 0, 12] and boxes.max(0).tolist() == [35, 47, 51, 63]


def test_cutout_of_the_recipe_is_half_the_shorter_side():
    image = picture(448, 448)
    function = AUGMENTATIONS["cutout"]
    boxes = [painted(image, function(image, np.random.default_rng(seed))) for seed in range(40)]
    assert max(bottom - top + 1 for top, bottom, _, _ in boxes) == 225
    assert max(right - left + 1 for _, _, left, right in boxes) == 225


def test_cutout_colours_are_random():
    white, rng = np.full((4, 4, 3), 255, np.uint8), np.random.default_rng(0)
    colours = np.array([cutout(white, rng, length=8)[0, 0] for _ in range(300)])
    assert colours.min() < 5 and colours.max() > 250
    assert len(np.unique(colours, axis=0)) > 290


def test_names_keep_their_order_and_unknown_ones_are_all_told():
    assert augmentations(()) == []
    names = ["randaugment_v4", "cutout", "cutout"]
    assert augmentations(names) == [AUGMENTATIONS[name] for name in names]
    with pytest.raises(ConfigError) as caught:
        augmentations(["randaugment", "cutout", "mirror!"])
    first, second = caught.value.message.splitlines()
    assert first.startswith("data.augment has 'randaugment'") and "mean randaugment_v4?" in first
    assert "'mirror!'" in second and "there are cutout, randaugment_v4." in second
