"""How pictures of other shapes become images of the network's size: squeezed, padded, cropped."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from mlcls_jax.config import Data
from mlcls_jax.data.augment import Box
from mlcls_jax.data.decoder import _decode
from mlcls_jax.data.frame import FILL, FITS, Frame
from mlcls_jax.data.image_files import Files
from mlcls_jax.data.images import read_image, resize, resize_fast
from mlcls_jax.data.pipeline import Reader, eval_batches, train_batches
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.drawing import draw_evidence
from mlcls_jax.inference.exports.verify import read_images
from mlcls_jax.inference.predictor import Predictor
from tests.helpers.bundles import write_images, write_small
from tests.helpers.photos import cells

SHAPES = [(40, 60), (60, 40), (61, 87), (50, 50), (37, 300), (300, 37), (500, 333)]


def picture(shape, seed=0):
    return np.asarray(cells(seed, shape, Image.Resampling.BICUBIC))


def paddle_crop(image, short, size):
    """ResizeImage(resize_short, backend=pil) and CropImage of PaddleClas, in its own arithmetic."""
    height, width = image.shape[:2]
    percent = float(short) / min(width, height)
    scaled = round(width * percent), round(height * percent)
    scaled = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR))
    left, top = (scaled.shape[1] - size) // 2, (scaled.shape[0] - size) // 2
    return scaled[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "short"), [(56, None), (56, 57), (33, 33)])
def test_crop_is_paddles_resize_short_and_crop_image(shape, size, short):
    image = picture(shape)
    wanted = paddle_crop(image, short or {56: 64}[size], size)
    np.testing.assert_array_equal(Frame((size, size), "crop", short)(image), wanted)


def test_the_short_side_before_the_cut_is_256_for_224():
    assert Frame((224, 224), "crop").short_side == 256
    assert Frame((448, 448), "crop").short_side == 512
    assert Frame((224, 224), "crop").describe() == {"fit": "crop", "resize_short": 256}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
def test_pad_keeps_the_aspect_ratio_between_margins(shape, size):
    image = picture(shape)
    padded = Frame(size, "pad")(image)
    scale = min(size[0] / shape[0], size[1] / shape[1])
    inner = round(shape[0] * scale), round(shape[1] * scale)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    inside = padded[top : top + inner[0], left : left + inner[1]]
    np.testing.assert_array_equal(inside, resize(image, inner))
    outside = np.ones(size, bool)
    outside[top : top + inner[0], left : left + inner[1]] = False
    assert (padded[outside] == FILL).all()
    assert inner[0] == size[0] or inner[1] == size[1]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 900), (448, 448)])
def test_every_shape_becomes_an_image_of_little_memory(fit, shape):
    image = np.full((*shape, 3), 7, np.uint8)
    for resized in (resize, resize_fast):
        seen = []
        frame = Frame((32, 48), fit)
        made = frame(
            image, lambda im, size, r=resized, s=seen: s.append(math.prod(size)) or r(im, size)
        )
        assert made.shape == (32, 48, 3)
        assert made[15, 23].tolist() == [7, 7, 7]
        assert max(seen) < 100_000  # pixels


def test_crop_of_an_oblong_size_covers_it():
    # Scaling the short side to 36 would leave 36 x 54 of an upright picture: too narrow.
    assert Frame((32, 48), "crop", 36).placed(60, 40) == (72, 48, 20, 0)


@pytest.mark.parametrize("fit", FITS)
def test_training_evaluation_prediction_and_serving_see_the_same_pixels(fit, tmp_path):
    paths = write_images(tmp_path / "images", 3, size=(50, 95))
    frame = Frame((32, 48), fit)
    bundle = read_bundle(write_small(tmp_path / "bundle", frame=frame))
    assert bundle.frame.describe() == frame.describe()
    pixels = np.stack([frame(read_image(path)) for path in paths])

    reader, data = Reader(Files(paths, ("a",)), frame, "raise"), Data(threads=0)
    (evaluated,) = eval_batches(reader, data, batch_size=3)
    np.testing.assert_array_equal(evaluated["image"], pixels)
    exact = Data(threads=0, train_resize="exact")
    (trained,) = train_batches(reader, exact, batch_size=3, seed=0, start_step=0, end_step=1)
    np.testing.assert_array_equal(trained["image"], pixels[trained["index"]])
    predictor = Predictor(bundle)
    predicted = np.stack([predictor.prepare(read_image(path)) for path in paths])
    np.testing.assert_array_equal(predicted, pixels)
    job = json.loads(json.dumps(asdict(bundle.frame)))  # as it travels to a server's decoder
    served = [
        _decode(p.read_bytes(), frames=[job], max_pixels=10**6, drawn_side=None) for p in paths
    ]
    np.testing.assert_array_equal(np.concatenate(served), pixels)
    np.testing.assert_array_equal(read_images(tmp_path / "images", bundle.frame), pixels)


def test_a_random_crop_has_the_images_form_where_evaluation_crops():
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    box = Box(0.1, 0.2, 0.8, 0.8)  # as wide for its height as the picture: 80 x 160 pixels
    squeezed = box.fitted(columns, Frame((40, 40)), resize)
    np.testing.assert_allclose(np.ptp(squeezed[0, :, 0]), 160, atol=8)
    cut = box.fitted(columns, Frame((40, 40), "crop"), resize)  # 100 x 113: the area, clipped
    np.testing.assert_allclose(np.ptp(cut[0, :, 0]), 113, atol=5)
    small = Box(0.1, 0.2, 0.5, 0.5).fitted(columns, Frame((40, 40), "crop"), resize)
    np.testing.assert_allclose(np.ptp(small[0, :, 0]), math.sqrt(50 * 100), atol=4)


@pytest.mark.parametrize("shape", [(300, 700), (700, 300), (500, 500)])
def test_a_random_crop_is_never_scaled_up_if_the_picture_has_what_it_needs(shape):
    frame, rng = Frame((40, 40), "crop"), np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.uniform(0.6, 1, 2)
        box = Box(0, 0, height, width)
        scale = max(n / side for n, side in zip(box.needed(frame), shape, strict=True))
        decoded = np.zeros((math.ceil(shape[0] * scale), math.ceil(shape[1] * scale), 3), np.uint8)
        taken = []
        box.fitted(decoded, frame, lambda im, size, taken=taken: taken.append(im.shape) or im)
        assert min(taken[0][:2]) >= 40


def test_evidence_lies_on_the_part_that_the_network_saw():
    image, ones = np.full((40, 120, 3), 200, np.uint8), np.array([[0.0, 1.0], [1.0, 1.0]])
    drawn = np.asarray(draw_evidence(image, ones, Frame((32, 32), "crop", 32))).astype(int)
    reddish = drawn[..., 0] - drawn[..., 2] > 60
    assert reddish[:, 62:80].all()
    assert not reddish[:, :40].any()
    assert not reddish[:, 80:].any()
    whole = np.asarray(draw_evidence(image, ones, Frame((32, 32), "pad"))).astype(int)
    assert (whole[..., 0] - whole[..., 2] > 60)[:, 70:].all()
    np.testing.assert_array_equal(
        draw_evidence(image, ones, Frame((32, 32))), draw_evidence(image, ones)
    )
    huge = np.zeros((1, 60_000, 3), np.uint8)
    assert draw_evidence(huge, ones, Frame((32, 32), "pad")).size == (60_000, 1)
