"""The predictor: thresholds, order, errors, batches, evidence."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

from mlcls_jax.data.images import read_image, resize
from mlcls_jax.errors import DataError, InputError
from mlcls_jax.inference.bundle import read_bundle, update_bundle
from mlcls_jax.inference.masking import copies, shares
from mlcls_jax.inference.predictor import Predictor
from tests.helpers.bundles import LABELS, write_images, write_small
from tests.helpers.commands import on_devices
from tests.helpers.tiers import slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("bundle"), size=(64, 96), query_num=3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 7)


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(read_bundle(folder), batch_size=4)


@pytest.fixture(scope="module")
def truth(folder, paths):
    """Scores [7, K] straight from the network."""
    bundle = read_bundle(folder)
    images = np.stack([resize(read_image(path), bundle.image_size) for path in paths])
    outputs = jax.jit(bundle.model.network.apply)(bundle.model.variables, images)
    return np.asarray(jax.nn.sigmoid(outputs.logits))


def reported(scores, threshold):
    return [
        i for i in np.argsort(-scores) if scores[i] > np.broadcast_to(threshold, len(scores))[i]
    ]


def test_every_image_gets_its_scores_in_order_whatever_the_batches(predictor, paths, truth):
    for size in (1, 2, 4, 7):
        results = list(predictor.predict(paths, batch_size=size))
        assert [r["input_path"] for r in results] == [str(path) for path in paths]
        np.testing.assert_allclose([r.all_scores for r in results], truth, atol=1e-5)
        for result, scores in zip(results, truth, strict=True):
            assert result["class_ids"] == reported(scores, 0.5)
            assert result["label_names"] == [LABELS[i] for i in result["class_ids"]]


def test_ragged_batches_compile_nothing_new(folder, paths):
    predictor = Predictor(read_bundle(folder), batch_size=4)
    predictor.warm_up()
    assert predictor.backend._traced._cache_size() == 2  # batches of 1 and of 4
    for count in range(1, 8):
        assert len(list(predictor.predict(paths[:count]))) == count
    assert predictor.backend._traced._cache_size() == 2


@pytest.mark.parametrize(
    ("threshold", "by_class"),
    [
        (0.3, 0.3),
        ([0.1, 0.2, 0.9, 0.95, 1.0], [0.1, 0.2, 0.9, 0.95, 1.0]),
        (np.float32([0.1, 0.2, 0.9, 0.95, 1]), [0.1, 0.2, 0.9, 0.95, 1.0]),
        ({"default": 0.9, 3: 0.01}, [0.9, 0.9, 0.9, 0.01, 0.9]),
        ({"default": 0.9, "3": 0.01, "dog": 1}, [0.9, 1.0, 0.9, 0.01, 0.9]),
        ({"猫": 0.02}, [0.5, 0.5, 0.5, 0.02, 0.5]),
        ({}, 0.5),
        (0, 0),
    ],
)
def test_thresholds_of_every_kind(predictor, paths, truth, threshold, by_class):
    results = predictor.predict(paths, threshold=threshold)
    for result, scores in zip(results, truth, strict=True):
        assert result["class_ids"] == reported(scores, np.float32(by_class))


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (1.5, "threshold is 1.5; it must be a number from 0 to 1"),
        (float("nan"), "threshold is nan"),
        ("0.5", "threshold is '0.5'"),
        (True, "threshold is True"),
        ([0.5, 0.5], "threshold has 2 numbers, but the model has 5 labels"),
        ([0.5, 0.5, 0.5, 0.5, "a"], "threshold is 'a'"),
        ({"dgo": 0.5}, "threshold has the key 'dgo', .* did you mean 'dog'?"),
        ({5: 0.5}, "threshold has the key 5, which is no class id below 5"),
        ({"default": None}, "threshold is None"),
        ({"dog": -0.1}, "threshold is -0.1"),
    ],
)
def test_wrong_thresholds_are_refused_before_anything_is_read(predictor, threshold, said):
    with pytest.raises(InputError, match=said):
        predictor.predict("nowhere.png", threshold=threshold)


def test_the_bundles_own_thresholds_and_temperature_are_used(tmp_path, paths, truth):
    folder = write_small(tmp_path / "bundle", size=(64, 96), query_num=3)
    limits = tuple(np.quantile(truth, 0.5, axis=0).astype(float))
    update_bundle(folder, threshold=limits, temperature=2.0, calibration={"images": 7})
    bundle = read_bundle(folder)
    assert (bundle.threshold, bundle.temperature) == (limits, 2.0)
    assert bundle.facts["calibration"] == {"images": 7}
    cooled = 1 / (1 + np.exp(-np.log(truth / (1 - truth)) / 2))
    for result, scores in zip(Predictor(bundle).predict(paths), cooled, strict=True):
        np.testing.assert_allclose(result.all_scores, scores, atol=1e-4)
        assert result["class_ids"] == reported(result.all_scores, np.float32(limits))
    only_cat = Predictor(bundle, threshold={"default": 1, "cat": 0})
    assert [r["label_names"] for r in only_cat.predict(paths[:1])] == [["cat"]]
    changed = list(only_cat.predict(paths[:1], threshold={"dog": 0}))  # the rest as its own
    assert sorted(changed[0]["label_names"]) == ["cat", "dog"]


def broken_between(tmp_path, paths):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is text")
    return [*paths[:2], broken, tmp_path / "missing.png", *paths[2:4]]


def test_an_image_that_cannot_be_read_gives_an_error_result_and_the_rest_goes_on(
    tmp_path, predictor, paths, truth
):
    inputs = broken_between(tmp_path, paths)
    results = list(predictor.predict(inputs, on_error="yield"))
    assert [r["input_path"] for r in results] == [str(path) for path in inputs]
    np.testing.assert_allclose(
        [r.all_scores for r in results if "error" not in r], truth[:4], atol=1e-5
    )
    assert [r.get("error", "").partition(":")[0] for r in results[2:4]] == [
        str(path) for path in inputs[2:4]
    ]
    assert results[2]["class_ids"] == [] and results[2].image is None
    assert "broken.jpg" in results[2].save_to_json(tmp_path / "out").read_text()
    assert results[2].save_to_img(tmp_path / "out").name == "broken_res.jpg"


def test_by_default_it_raises_after_the_results_before(tmp_path, predictor, paths):
    results = predictor.predict(broken_between(tmp_path, paths))
    assert [next(results)["input_path"] for _ in range(2)] == [str(p) for p in paths[:2]]
    with pytest.raises(DataError, match=r"broken\.jpg: this is not an image"):
        next(results)


def test_a_long_stream_is_read_little_by_little(predictor, paths):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield paths[taken % len(paths)]

    threads = threading.active_count()
    results = predictor.predict(endless(), batch_size=2)
    for _ in range(5):
        next(results)
    assert taken < 60
    results.close()
    for _ in range(100):  # threads may finish the picture that they are at
        if threading.active_count() <= threads:
            break
        time.sleep(0.1)
    assert threading.active_count() <= threads


def test_threads_may_ask_at_once(predictor, paths, truth):
    def ask(index):
        (result,) = predictor.predict(paths[index])
        return result.all_scores

    order = [i % len(paths) for i in range(42)]
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_allclose(list(pool.map(ask, order)), truth[order], atol=1e-5)


def test_evidence_belongs_to_the_query_of_its_label(tmp_path, predictor, paths, truth):
    bundle = predictor.bundle
    image = resize(read_image(paths[0]), bundle.image_size)[None]
    network, variables = bundle.model.network, bundle.model.variables

    @jax.jit
    def evidence(variables, image):
        return network.evidence(variables, network.apply(variables, image).features)

    maps = evidence(variables, image)
    assert maps.shape == (1, 3, 2, 3)  # 5 labels on 3 queries: 2 labels a query
    plain, explained = (
        next(predictor.predict(paths[0], threshold=0, explain=explain)) for explain in (False, True)
    )
    assert "evidence" not in plain
    assert {k: v for k, v in explained.items() if k != "evidence"} == plain
    assert len(explained["evidence"]) == len(LABELS)
    for class_id, evidence in zip(explained["class_ids"], explained["evidence"], strict=True):
        np.testing.assert_allclose(evidence, maps[0, class_id // 2], atol=1e-4)
    saved = Image.open(explained.save_to_img(tmp_path / "explained.png"))
    assert saved.height > Image.open(plain.save_to_img(tmp_path / "plain.png")).height + 300


@pytest.mark.parametrize("name", ["Toy", slow("vit_tiny_patch16_224")])
def test_heads_without_attention_are_explained_by_masking(name, tmp_path, paths, toy):
    folder = write_small(tmp_path / "bundle", name, size=(64, 96))
    predictor = Predictor(read_bundle(folder), batch_size=64)
    result = next(predictor.predict(paths[0], threshold=0, explain=True))
    image = predictor.prepare(read_image(paths[0]))
    wanted = shares(predictor.run(image[None])[0], predictor.run(copies(image)))
    for class_id, found in zip(result["class_ids"], result["evidence"], strict=True):
        np.testing.assert_allclose(found, wanted[class_id], atol=1e-3)
    total = wanted.sum((1, 2))  # 0 where nothing speaks for a label
    assert np.isclose(total[total > 0], 1, atol=1e-4).all() and total.any()


def test_wrong_options_are_told(predictor):
    with pytest.raises(InputError, match="on_error is 'ignore'; it must be raise or yield"):
        predictor.predict("x.png", on_error="ignore")
    with pytest.raises(InputError, match="batch_size is 0"):
        predictor.predict("x.png", batch_size=0)


@pytest.mark.slow
def test_several_devices_share_the_batches(folder, paths, truth):
    """Two virtual devices, in a process of their own."""
    program = (
        "import sys, numpy as np\n"
        "from mlcls_jax import create_model\n"
        "model = create_model(model_dir=sys.argv[1], device='cpu:0,1', batch_size=2)\n"
        "print([d.id for d, _ in model.backend._replicas])\n"
        "print(np.array([r.all_scores for r in model.predict(sys.argv[2:])]).tolist())\n"
    )
    devices, scores = on_devices(2, program, folder, *paths).splitlines()
    assert devices == "[0, 1]"
    np.testing.assert_allclose(np.array(eval(scores)), truth, atol=1e-5)


def test_embeddings_are_means_of_the_map_that_the_head_sees(folder, predictor, paths):
    bundle = read_bundle(folder)
    images = np.stack([resize(read_image(path), bundle.image_size) for path in paths])
    features = jax.jit(bundle.model.network.apply)(bundle.model.variables, images).features
    found = predictor.embed(paths)  # a batch of 4 and one of 3
    assert found.dtype == np.float32
    expected = features.mean((1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    results = list(predictor.predict(paths, tta=["flip"], embeddings=True))
    assert (np.stack([one.embedding for one in results]) == found).all()
    plain = list(predictor.predict(paths, tta=["flip"]))
    assert plain[0].embedding is None
    for one, other in zip(results, plain, strict=True):
        np.testing.assert_allclose(one.all_scores, other.all_scores, atol=1e-6)
    with pytest.raises(InputError, match="only one of them"):
        list(predictor.predict(paths, explain=True, embeddings=True))


def test_what_cannot_be_embedded_is_named(predictor, paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        predictor.embed([paths[0], tmp_path / "broken.png"])
    with pytest.raises(InputError, match="no image to embed"):
        predictor.embed([])
