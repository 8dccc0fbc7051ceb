"""Augmentation: operations against the original's pixels, the rest against plain NumPy, and what
chance may do."""

import zlib
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from benchmarks import pillow_recipe
from mlcls_jax.data.augment import (
    AUGMENTATIONS,
    CROPS,
    OPERATIONS,
    Box,
    augmentations,
    crop_of,
    cutout,
    magnitude,
    operations,
    policies,
    rand_augment_v4,
)
from mlcls_jax.errors import ConfigError
from tests.helpers.paddle_recipe import image_for

GOLDENS = np.load(Path(__file__).parents[1] / "data" / "paddle" / "randaug_v4_ops.npz")
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


@st.composite
def pictures(draw) -> np.ndarray:
    """Noise, few values, flat patches, grey or one colour, of any form."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    noise = picture(height, width, draw(st.integers(0, 2**32)))
    kinds = (
        noise,
        (noise // 128) * 255,
        noise // 64 + 100,
        noise[:1, :1].repeat(height, 0).repeat(width, 1),
        np.repeat(noise[..., :1], 3, 2),
        noise[::5, ::5].repeat(5, 0).repeat(5, 1)[:height, :width],
    )
    return np.ascontiguousarray(draw(st.sampled_from(kinds)))


@pytest.mark.parametrize("name", OPERATIONS)
@given(pictures(), st.integers(0, 9), st.floats(0.01, 0.99), st.sampled_from((-1, 1)))
@settings(max_examples=60)
def test_operations_equal_pillows_bit_for_bit(name, image, index, between, sign):
    operation = OPERATIONS[name]
    strengths = [operation.magnitudes[index]]
    if index and operation.drawn != "centre":
        low, high = operation.magnitudes[index - 1 : index + 1]
        strengths.append(low + between * (high - low))
    for strength in strengths:
        chance = {}
        if operation.drawn == "centre":
            chance["centre"] = (int(between * image.shape[0]), int(between * image.shape[1]))
        elif operation.drawn == "sign":
            strength *= sign
        changed = operation.apply(image, strength, **chance)
        expected = pillow_recipe.OPERATIONS[name](Image.fromarray(image), strength, **chance)
        np.testing.assert_array_equal(changed, expected)


def test_shears_of_photographs_by_every_slope_equal_pillows(source):
    # Parts of a pixel that make many values whole numbers, or nearly; and far out of the picture.
    slopes = [*np.linspace(0, 0.3, 10), 0.15, 0.5, 1.0, 1 / 3, 3.7, 1e-9, 0.1 + 1e-12]
    for slope, name in product((*slopes, *np.negative(slopes)), ("shearX", "shearY")):
        changed = OPERATIONS[name].apply(source, slope)
        expected = pillow_recipe.OPERATIONS[name](Image.fromarray(source), slope)
        np.testing.assert_array_equal(changed, expected)


@given(pictures(), st.integers(0, 2**32))
@settings(max_examples=100)
def test_the_recipe_equals_pillows_from_the_same_seed(image, seed):
    rng, changed = np.random.default_rng(seed), image
    for function in augmentations(("cutout", "randaugment_v4")):
        changed = function(changed, rng)
    expected = pillow_recipe.augment(Image.fromarray(image), np.random.default_rng(seed))
    np.testing.assert_array_equal(changed, expected)


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
        turned = operations.rotate(image, degrees)
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
    """Operations leave the image alone and note their name, strength (that is the index of it,
    where it comes from their table), sign and centre here."""
    calls = []

    def noting(name):
        def note(image, strength, centre=None):
            calls.append((name, abs(strength), int(np.sign(strength)), centre))
            return image

        return note

    noted = {
        name: operation._replace(apply=noting(name), magnitudes=np.arange(10))
        for name, operation in OPERATIONS.items()
    }
    monkeypatch.setattr(operations, "OPERATIONS", noted)
    monkeypatch.setattr(policies, "OPERATIONS", noted)
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


PAPERS_POLICY = """
    posterize .4 8  rotate .6 9       | solarize .6 5  autocontrast .6 5
    equalize .8 8   equalize .6 3     | posterize .6 7 posterize .6 6
    equalize .4 7   solarize .2 4     | equalize .4 4  rotate .8 8
    solarize .6 3   equalize .6 7     | posterize .8 5 equalize 1 2
    rotate .2 3     solarize .6 8     | equalize .6 8  posterize .4 6
    rotate .8 8     color .4 0        | rotate .4 9    equalize .6 2
    equalize 0 7    equalize .8 8     | invert .6 4    equalize 1 8
    color .6 4      contrast 1 8      | rotate .8 8    color 1 2
    color .8 8      solarize .8 7     | sharpness .4 7 invert .6 8
    shearX .6 5     equalize 1 9      | color .4 0     equalize .6 3
    equalize .4 7   solarize .2 4     | solarize .6 5  autocontrast .6 5
    invert .6 4     equalize 1 8      | color .6 4     contrast 1 8
    equalize .8 8   equalize .6 3
"""


def test_autoaugment_draws_the_papers_sub_policies_with_their_probabilities(applied):
    words = PAPERS_POLICY.replace("|", " ").split()
    steps = [(words[i], float(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 3)]
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    assert list(policies.SUB_POLICIES) == pairs and len(pairs) == 25
    expected = Counter()
    for (one, p, i), (other, q, j) in pairs:
        expected[(one, i), (other, j)] += p * q / 25
        expected[((one, i),)] += p * (1 - q) / 25
        expected[((other, j),)] += (1 - p) * q / 25
        expected[()] += (1 - p) * (1 - q) / 25

    image, rng, draws = picture(4, 4), np.random.default_rng(0), 20_000
    seen = Counter()
    for _ in range(draws):
        AUGMENTATIONS["autoaugment"](image, rng)
        seen[tuple((name, index) for name, index, _, _ in applied)] += 1
        applied.clear()
    expected += Counter()  # without the impossible
    assert seen.keys() == expected.keys()
    for outcome, share in expected.items():
        assert abs(seen[outcome] / draws - share) < 5 * (share / draws) ** 0.5


def test_randaugment_is_two_of_fourteen_at_one_strength(applied):
    image, rng, draws = picture(4, 4), np.random.default_rng(0), 10_000
    for _ in range(draws):
        AUGMENTATIONS["randaugment"](image, rng)
    assert len(applied) == 2 * draws
    half = 5 / 10
    strengths = {
        **dict.fromkeys(("shearX", "shearY"), 0.3 * half),
        **dict.fromkeys(("translateX", "translateY"), 150 / 331 * half),
        **dict.fromkeys(("color", "contrast", "sharpness", "brightness"), 0.9 * half),
        **dict.fromkeys(("autocontrast", "equalize", "invert"), 0),
        **{"rotate": 30 * half, "posterize": int(4 * half), "solarize": 256 * half},
    }
    assert {name: strength for name, strength, _, _ in applied} == pytest.approx(strengths)
    pairs = Counter(zip(*[iter(name for name, *_ in applied)] * 2, strict=True))
    assert len(pairs) == 14**2
    often = np.array([pairs[pair] for pair in product(strengths, repeat=2)]) / draws
    np.testing.assert_allclose(often, 1 / 196, atol=5 * (1 / 196 / draws) ** 0.5)
    for name, operation in OPERATIONS.items():
        signs = [sign for one, _, sign, _ in applied if one == name]
        if operation.drawn == "sign":
            assert abs(np.mean(signs)) < 5 / len(signs) ** 0.5


def draws_of(name: str, image: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [AUGMENTATIONS[name](image, rng) for _ in range(count)]


MEAN_COLOUR = (124, 116, 104)  # of ImageNet


def hidden_parts(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Where the mean colour was painted, bool [H, W]; everything else is as it was."""
    hidden = (changed == MEAN_COLOUR).all(-1)
    np.testing.assert_array_equal(np.where(hidden[..., None], image, changed), image)
    return hidden


def plain_picture(height: int, width: int) -> np.ndarray:
    """Noise without the mean colour."""
    image = picture(height, width)
    image[(image == MEAN_COLOUR).all(-1)] = 0
    return image


def test_random_erasing_hides_one_box_half_the_time():
    image, draws = plain_picture(60, 80), 3000
    boxes, areas, upright = 0, [], []
    for changed in draws_of("random_erasing", image, draws):
        if changed is image:
            continue
        hidden = hidden_parts(image, changed)
        rows, columns = hidden.any(1), hidden.any(0)
        np.testing.assert_array_equal(hidden, rows[:, None] & columns)
        height, width = rows.sum(), columns.sum()
        assert 0.25 < height / width < 1 / 0.25  # 0.3 and a pixel
        boxes += 1
        areas.append(hidden.mean())
        upright.append(height > width)
    assert abs(boxes / draws - 0.5) < 5 * (0.25 / draws) ** 0.5
    assert 0.018 < min(areas) < 0.03 and 0.38 < max(areas) < 0.42
    # What was drawn, uniformly, is what fits; the same in plain NumPy:
    rng = np.random.default_rng(1)
    area, aspect = rng.uniform(0.02, 0.4, 100_000), rng.uniform(0.3, 1 / 0.3, 100_000)
    height, width = np.sqrt(area * 4800 * aspect), np.sqrt(area * 4800 / aspect)
    fits = (height < 59.5) & (width < 79.5)
    assert abs(np.mean(areas) - area[fits].mean()) < 5 * 0.11 / boxes**0.5
    assert abs(np.mean(upright) - (aspect[fits] > 1).mean()) < 0.05


@pytest.mark.parametrize("size", [(224, 224), (448, 448), (112, 150)])
def test_hide_and_seek_hides_half_the_cells_of_a_grid(size):
    image = plain_picture(*size)
    scale, kinds, shares = min(size) / 224, Counter(), []
    for changed in draws_of("hide_and_seek", image, 200):
        if changed is image:
            kinds[0] += 1
            continue
        hidden = hidden_parts(image, changed)
        cell = max(c for c in (16, 32, 44, 56) if is_grid(hidden, round(c * scale)))
        kinds[cell] += 1
        shares.append(hidden.mean())
    assert set(kinds) == {0, 16, 32, 44, 56} and min(kinds.values()) > 20
    assert abs(np.mean(shares) - 0.5) < 0.02


def is_grid(hidden: np.ndarray, cell: int) -> bool:
    """Whether cells of this side are hidden as a whole or not at all."""
    corners = hidden[::cell, ::cell].repeat(cell, 0).repeat(cell, 1)
    return np.array_equal(corners[: hidden.shape[0], : hidden.shape[1]], hidden)


def test_gridmask_hides_squares_on_a_quarter_of_the_picture_half_the_time():
    image, draws = plain_picture(224, 300), 400
    shares, distances = [], []
    for changed in draws_of("gridmask", image, draws):
        if changed is image:
            continue
        hidden = hidden_parts(image, changed)
        rows, columns = hidden.any(1), hidden.any(0)
        np.testing.assert_array_equal(hidden, rows[:, None] & columns)
        shares.append(hidden.mean())
        starts = np.flatnonzero(np.diff(columns.astype(int)) == 1)
        ends = np.flatnonzero(np.diff(columns.astype(int)) == -1)
        distances += np.diff(starts).tolist()
        for start in starts:
            stop = ends[ends > start]
            if len(stop) and len(starts) > 1:
                assert abs((stop[0] - start) - np.diff(starts)[0] / 2) <= 1.5
    assert abs(len(shares) / draws - 0.5) < 5 * (0.25 / draws) ** 0.5
    assert abs(np.mean(shares) - 0.25) < 0.02
    assert 95 <= min(distances) < 105 and 200 < max(distances) <= 225


def test_flip_mirrors_half_the_time():
    image = picture(5, 7)
    for view in (image, picture(12, 14)[::2, 3:10], np.broadcast_to(image[:1, :1], (5, 7, 3))):
        flipped = [changed for changed in draws_of("flip", view, 400) if changed is not view]
        assert 150 < len(flipped) < 250
        assert all((changed == view[:, ::-1]).all() for changed in flipped)


def test_color_jitter_is_pillows_enhancements_in_any_order():
    image, orders = picture(9, 11), Counter()
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        changed = AUGMENTATIONS["color_jitter"](image, rng)
        rng = np.random.default_rng(seed)
        strengths, order = rng.uniform(0.6, 1.4, 3), tuple(rng.permutation(3).tolist())
        expected = Image.fromarray(image)
        for kind in order:
            expected = kinds[kind](expected).enhance(strengths[kind])
        np.testing.assert_array_equal(changed, expected)
        orders[order] += 1
        factors.append(strengths)
    assert len(orders) == 6 and min(orders.values()) > 25
    assert np.min(factors) < 0.62 and np.max(factors) > 1.38


def test_crops_keep_half_the_picture_and_nearly_its_form():
    rng, draws = np.random.default_rng(0), 20_000
    boxes = np.array([CROPS["random_resized_crop"](rng) for _ in range(draws)])
    top, left, height, width = boxes.T
    area, aspect = height * width, width / height
    assert boxes.min() >= 0 and (top + height).max() <= 1 and (left + width).max() <= 1
    assert 0.5 <= area.min() < 0.501 and area.max() > 0.98
    assert 3 / 4 <= aspect.min() < 0.752 and 1.33 < aspect.max() <= 4 / 3
    # Whatever fits of uniform areas and log-uniform aspects:
    areas = rng.uniform(0.5, 1, 100_000)
    aspects = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 100_000))
    fits = (areas * aspects <= 1) & (areas / aspects <= 1)
    for ours, theirs in ((area, areas[fits]), (np.log(aspect), np.log(aspects[fits]))):
        quantiles = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(
            np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.01
        )
    # Wherever it fits, it is equally likely to lie.
    for start, side in ((top, height), (left, width)):
        place = start[side < 0.95] / (1 - side[side < 0.95])
        np.testing.assert_allclose(np.quantile(place, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_a_crop_is_a_view_and_never_empty(height, width, seed):
    image = picture(height, width)
    box = CROPS["random_resized_crop"](np.random.default_rng(seed))
    part = box.of(image)
    assert np.shares_memory(part, image) and part.size > 0
    for whole, side, share in (
        (height, part.shape[0], box.height),
        (width, part.shape[1], box.width),
    ):
        assert share * whole - 1e-9 <= side < share * whole + 2 and side <= whole


def test_the_box_of_a_crop_says_where():
    image = picture(10, 20)
    np.testing.assert_array_equal(Box(0.2, 0.5, 0.5, 0.25).of(image), image[2:7, 10:15])
    np.testing.assert_array_equal(Box(0.25, 0, 0.5, 1).of(image), image[2:8])
    assert Box(0, 0, 1, 1).of(image).shape == image.shape


def test_names_keep_their_order_and_unknown_ones_are_all_told():
    assert augmentations(()) == []
    names = ["randaugment_v4", "cutout", "cutout"]
    assert augmentations(names) == [AUGMENTATIONS[name] for name in names]
    with pytest.raises(ConfigError) as caught:
        augmentations(["randaugment_v3", "cutout", "mirror!"])
    first, second = caught.value.message.splitlines()
    assert first.startswith("data.augment has 'randaugment_v3'") and "mean randaugment_v4?" in first
    assert "'mirror!'" in second and ", cutout, flip, " in second


def test_a_crop_stands_first():
    assert crop_of(()) is None and crop_of(["flip"]) is None
    names = ["random_resized_crop", "flip"]
    assert crop_of(names) is CROPS["random_resized_crop"]
    assert augmentations(names) == [AUGMENTATIONS["flip"]]
    with pytest.raises(ConfigError) as caught:
        augmentations(["flip", "random_resized_crop", "cutuot", "random_resized_crop"])
    unknown, *places = caught.value.message.splitlines()
    assert "cutout?" in unknown
    assert ["at place 2" in places[0], "at place 4" in places[1]] == [True, True]
