"""Backends: the same scores from each, whatever the batch; precision; the choice of the fastest."""

import itertools
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from mlcls_jax.commands import backends as mode
from mlcls_jax.errors import InputError, UserError
from mlcls_jax.inference.backends import BACKENDS, open_backend, settle_precision
from mlcls_jax.inference.backends.fastest import measure
from mlcls_jax.inference.backends.jitted import Jitted, batch_sizes, cover
from mlcls_jax.inference.backends.onnx_cache import onnx_file, thread_count
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.devices import device_list
from mlcls_jax.inference.exports import reference_scores
from mlcls_jax.inference.exports.verify import sample_images
from mlcls_jax.inference.precision import in_dtype, quantize, settle
from tests.helpers.bundles import write_small
from tests.helpers.commands import on_devices
from tests.helpers.tiers import need, slow

ROOT = Path(__file__).parents[2]
BATCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("bundle"), query_num=3)


@pytest.fixture(scope="module")
def bundle(folder):
    return replace(read_bundle(folder), temperature=2.0)


@pytest.fixture(scope="module")
def images(bundle):
    return np.concatenate([sample_images(bundle.image_size)] * 2)[:9]


@pytest.fixture(scope="module")
def wanted(bundle, images):
    return reference_scores(bundle, images)


@pytest.fixture(scope="module")
def jitted(bundle):
    backend = Jitted(bundle, devices=device_list("cpu"), batch_size=BATCH)
    backend.warm_up()
    return backend


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "mlcls_jax"


def test_batches_cover_all_images_once_and_are_at_least_half_full():
    for largest, count in itertools.product((1, 2, 4, 16, 20, 64), range(1, 150)):
        sizes = batch_sizes(largest)
        assert sizes[0] == 1 and sizes[-1] == largest
        parts = list(cover(count, sizes))
        covered = [index for start, number, _ in parts for index in range(start, start + number)]
        assert covered == list(range(count))
        assert all(size in sizes and number <= size < 2 * number for _, number, size in parts)


def test_scores_do_not_depend_on_the_number_of_images(jitted, images, wanted):
    for count in range(1, len(images) + 1):
        scores = jitted(images[:count])
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, wanted[:count], atol=1e-6)
    assert np.ptp(wanted, axis=0).max() > 1e-3  # the images can be told apart


def test_nothing_is_compiled_after_the_warm_up(bundle, jitted, images, caplog):
    with jax.log_compiles():
        for count in range(1, len(images) + 1):
            jitted(images[:count])
        assert not [record for record in caplog.records if "ompil" in record.getMessage()]
        Jitted(bundle, devices=device_list("cpu"), batch_size=1)(images[:1])
        assert [record for record in caplog.records if "ompil" in record.getMessage()]


def test_threads_get_their_own_scores(jitted, images, wanted):
    def ask(start):
        return jitted(images[start : start + 1 + start % 3])

    starts = [*range(7)] * 8
    with ThreadPoolExecutor(8) as pool:
        for start, scores in zip(starts, pool.map(ask, starts), strict=True):
            np.testing.assert_allclose(scores, wanted[start : start + 1 + start % 3], atol=1e-6)


def test_maps_come_with_the_same_scores(bundle, jitted, images, wanted):
    scores, maps = jitted.explain(images[:3])
    np.testing.assert_allclose(scores, wanted[:3], atol=1e-6)
    network, variables = bundle.model.network, bundle.model.variables
    outputs = jax.jit(network.apply)(variables, images[:3])
    direct = jax.jit(network.evidence)(variables, outputs.features)
    assert maps.shape == (3, 3, 1, 2) and maps.dtype == np.float32
    np.testing.assert_allclose(maps, direct, atol=1e-6)


@pytest.mark.parametrize("text", ["gpu:7", "tpu", "cuda", "cpu:1", "cpu:", "", "gpu:0,"])
def test_devices_that_are_not_there_are_refused_with_those_that_are(text):
    with pytest.raises(InputError, match="there is no such device") as caught:
        device_list(text)
    assert "cpu:0" in caught.value.hint


@pytest.mark.slow
def test_devices_take_turns(folder):
    program = """
import sys
from pathlib import Path
import numpy as np
from mlcls_jax.inference.backends import open_backend
from mlcls_jax.inference.bundle import read_bundle
bundle = read_bundle(Path(sys.argv[1]))
images = np.zeros((1, *bundle.image_size, 3), np.uint8)
backend = open_backend("jax", bundle, device="cpu:0,1")
run, ran_on = backend._traced, []
backend._traced = lambda w, batch, also: (ran_on.append(batch.device.id), run(w, batch, also))[1]
first, second = backend(images), backend(images)
np.testing.assert_allclose(first, second, atol=1e-6)
assert ran_on == [0, 1], ran_on
"""
    on_devices(2, program, folder)


def test_whole_numbers_are_within_half_a_step_of_the_weights():
    rng = np.random.default_rng(0)
    for shape in ((3, 3, 4, 6), (8, 6), (2, 8, 6)):
        kernel = rng.normal(size=shape).astype(np.float32) * 10.0 ** rng.integers(-3, 3, shape[-1])
        kernel[..., 0] = 0
        numbers, scale = quantize(kernel)
        assert numbers.dtype == np.int8 and scale.dtype == np.float32
        assert scale.size == (12 if len(shape) == 3 else 6)
        assert (np.abs(numbers * scale - kernel) <= scale * 0.5001).all()


@pytest.mark.parametrize(("precision", "part"), [("bfloat16", 1 / 2), ("int8", 1 / 4)])
def test_lower_precision_changes_scores_a_little(bundle, images, wanted, precision, part):
    backend = open_backend("jax", bundle, precision=precision)
    scores = backend(images)
    assert scores.dtype == np.float32
    assert 1e-5 < np.abs(scores - wanted).max() < 0.3
    _, weights = backend._replicas[0]
    kernels = [leaf for leaf in jax.tree.leaves(bundle.model.variables) if leaf.ndim > 1]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights) if leaf.ndim > 1)
    assert part <= size / sum(kernel.nbytes for kernel in kernels) < part * 1.2


def test_float32_is_float32_whatever_the_model_was_trained_with(bundle, images, wanted):
    scores = open_backend("jax", in_dtype(bundle, "bfloat16"))(images)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["onnxruntime", slow("openvino")])
def test_other_runtimes_give_the_scores_of_jax(name, bundle, images, wanted):
    need(name)
    backend = open_backend(name, bundle, batch_size=BATCH)
    assert backend.name == name
    for count in (1, BATCH, len(images)):
        np.testing.assert_allclose(backend(images[:count]), wanted[:count], atol=1e-5)
    with ThreadPoolExecutor(8) as pool:
        for index, scores in enumerate(pool.map(backend, (images[i : i + 1] for i in range(9)))):
            np.testing.assert_allclose(scores, wanted[index : index + 1], atol=1e-5)
    for precision in set(BACKENDS[name].precisions["cpu"]) - {"float32"}:
        # Drawn weights tell nothing of accuracy: noise goes through them as images do.
        scores = open_backend(name, bundle, batch_size=BATCH, precision=precision)(images)
        assert np.isfinite(scores).all() and np.abs(scores - wanted).max() > 1e-5


def test_an_onnx_file_is_made_once_for_a_model(bundle):
    path = onnx_file(bundle, "float32")
    made = path.stat().st_mtime_ns
    assert onnx_file(bundle, "float32") == path
    assert path.stat().st_mtime_ns == made
    other = onnx_file(replace(bundle, temperature=0.5), "float32")
    assert other != path and other.exists()
    assert not [file for file in path.parent.iterdir() if file.suffix != ".onnx"]
    assert onnx_file(bundle, "int8").stat().st_size < path.stat().st_size / 2


def test_what_a_backend_cannot_do_is_told_with_those_that_can(bundle):
    with pytest.raises(InputError, match="onnxruntime does not compute in bfloat16") as caught:
        open_backend("onnxruntime", bundle, precision="bfloat16")
    assert caught.value.hint == "Can: jax, openvino."
    with pytest.raises(InputError, match="must be one of float32, bfloat16, int8, auto"):
        open_backend("jax", bundle, precision="float16")
    with pytest.raises(InputError, match="one of jax, onnxruntime, tensorrt, openvino, auto"):
        open_backend("keras", bundle)
    with pytest.raises(InputError, match="openvino computes on the CPU") as caught:
        open_backend("openvino", bundle, device="gpu:0")
    assert caught.value.hint == "Can: jax, onnxruntime, tensorrt."
    with pytest.raises(InputError, match="tensorrt computes on the GPU"):
        open_backend("tensorrt", bundle, device="cpu")


@pytest.mark.parametrize(
    ("name", "options", "provider"),
    [
        ("onnxruntime", {"device": "gpu:0"}, "CUDAExecutionProvider"),
        ("tensorrt", {}, "TensorrtExecutionProvider"),
    ],
)
def test_a_wheel_without_the_provider_is_an_error_and_no_fall_back(name, options, provider, bundle):
    with pytest.raises(UserError, match=f"has no {provider}") as caught:
        open_backend(name, bundle, **options)
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in caught.value.hint


@pytest.mark.parametrize("name", ["npu", "npu:0", "xpu:0,1", "mlu", "gcu:1", "dcu:0"])
def test_accelerators_that_jax_lacks_are_named_with_the_way_out(name):
    with pytest.raises(InputError, match="JAX does not compute on") as caught:
        device_list(name)
    assert "computes on cpu, gpu and tpu; here there are: cpu:0." in caught.value.hint
    assert "--format onnx" in caught.value.hint


def test_on_accelerators_auto_is_bfloat16_where_the_backend_can():
    for kind in BACKENDS.values():
        for platform, able in kind.precisions.items():
            best = "bfloat16" if platform != "cpu" and "bfloat16" in able else "float32"
            assert settle("auto", platform, able) == best
            assert settle("int8", platform, able) == "int8"
    assert settle_precision("auto", "jax", "cpu") == "float32"
    assert settle_precision("auto", "tensorrt", None) == "bfloat16"
    assert settle_precision("auto", "onnxruntime", "gpu:1") == "float32"


def test_the_fastest_backend_is_taken_and_remembered(bundle, images, wanted, cache, caplog):
    caplog.set_level(logging.INFO, "mlcls_jax")
    first = open_backend("auto", bundle)
    np.testing.assert_allclose(first(images), wanted, atol=1e-5)
    (path,) = (cache / "backends").iterdir()
    kept = json.loads(path.read_text())
    times = kept["milliseconds_an_image"]
    assert first.name == min(times, key=times.get)
    assert kept["batch_size"] == 1 and kept["model"] == ["PP-LCNet_x0_25_ML", 32, 48, 5]
    told = [r.getMessage() for r in caplog.records if "ms per image" in r.getMessage()]
    assert len(told) == len(times) and all("measured now" in line for line in told)
    assert [line.split(":")[0] for line in told if line.endswith("; taken")] == [first.name]

    # The file decides, even against the facts.
    kept["milliseconds_an_image"]["jax"] = 0.0
    path.write_text(json.dumps(kept))
    caplog.clear()
    assert open_backend("auto", bundle).name == "jax"
    assert f"from the cache file {path}; taken" in caplog.text
    path.write_text("{")
    caplog.clear()
    open_backend("auto", bundle)
    assert "measured now" in caplog.text


def test_calls_that_are_measured_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure(calls, seconds=0.0)
    assert order == [*"aabbcc", *"abc" * 3]
    assert set(times) == {*"abc"}


def test_threads_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = os.sched_getaffinity(0)
    assert thread_count() == len(cores)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert thread_count() == 1
    finally:
        os.sched_setaffinity(0, cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3


@pytest.mark.slow
def test_the_command_shows_what_each_precision_costs(folder):
    need("openvino")
    text = mode.run([str(folder), "--batch_size=1"])
    rows = [line.split() for line in text.splitlines()[2:]]
    known = [[name, p] for name, kind in BACKENDS.items() for p in kind.precisions.get("cpu", ())]
    assert [row[:2] for row in rows] == known
    assert rows[0][3:] == ["1.00×", "0.0e+00", "0.0e+00", "0.00%"]
    assert all(float(row[2]) > 0 for row in rows)
    exact = [float(row[4]) for row in rows if row[1] == "float32"]
    assert len(exact) == 3 and max(exact) < 1e-4


def test_decisions_follow_the_thresholds_of_the_labels(bundle, tmp_path):
    scores = np.float32([[0.2, 0.5, 0.6, 0.9, 0.1]])
    assert bundle.decide(scores).tolist() == [[False, False, True, True, False]]
    own = replace(bundle, threshold=(0.1, 0.4, 0.7, 0.9, 0.05))
    assert own.decide(scores).tolist() == [[True, True, False, False, True]]
    single = read_bundle(write_small(tmp_path, task="single"))
    assert single.decide(scores).tolist() == [[False, False, False, True, False]]
