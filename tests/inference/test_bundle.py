"""A bundle is read whole and unchanged, or refused by file and key."""

import json
import logging
import re
import shutil
import stat
import threading

import numpy as np
import pytest
import safetensors.numpy

from mlcls_jax import files
from mlcls_jax.errors import WeightsError
from mlcls_jax.inference.bundle import copy_bundle, read_bundle, write_bundle
from tests.helpers.bundles import LABELS, write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("small") / "model", "PP-LCNet_x0_25")


@pytest.fixture
def folder(small, tmp_path):
    return shutil.copytree(small, tmp_path / "model")


def edit(folder, **changes):
    """Change keys of inference.json; `model__dtype` is that of its model section."""
    path = folder / "inference.json"
    described = json.loads(path.read_text())
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (described[section] if section else described)[key] = value
    path.write_text(json.dumps(described))


def forget(folder, *keys):
    path = folder / "inference.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in described.items() if k not in keys}))


def refuses(folder):
    with pytest.raises(WeightsError) as caught:
        read_bundle(folder)
    return caught.value


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 99}, "format=99: is of a newer version"),
        ({"format": None}, "format=None: must be 1"),
        ({"format": True}, "format=True: must be 1"),
        ({"model": 3}, "model=3: must be an object"),
        ({"model__hidden_dim": 2**63}, "model.hidden_dim=9223372036854775808: is larger"),
        ({"model__image_size": [10**400, 8]}, "model.image_size=.*: is larger"),
        ({"model__decoder_depth": 10**6}, "model.decoder_depth=1000000: .* fewer arrays"),
        ({"model__head_dropout": 7}, "model.head_dropout=7.*: must be"),
        ({"model__name": "PP-LCNet"}, "model.name=PP-LCNet: there is no such model"),
        ({"model__text_embeddings": "/etc/passwd"}, "model.text_embeddings='/etc/passwd': must"),
        ({"preprocess": []}, r"preprocess=\[\]: must be an object"),
        ({"preprocess__mean": [0, 0, 0]}, r"preprocess.mean=\[0, 0, 0\]: this version does"),
        ({"preprocess__std": 1}, "preprocess.std=1: this version does"),
        ({"preprocess__color": "BGR"}, "preprocess.color='BGR': this version does"),
        ({"preprocess__resize": [448, 448]}, r"preprocess.resize=\[448, 448\]: this version does"),
        ({"preprocess__scale": True}, "preprocess.scale=True: this version does"),
        ({"preprocess__crop": 224}, "preprocess.crop=224: is not known to this version"),
        ({"threshold": NAN}, "threshold=nan: must be a number from 0 to 1"),
        ({"threshold": True}, "threshold=True: must be"),
        ({"threshold": -0.1}, "threshold=-0.1: must be"),
        ({"threshold": "0.5"}, "threshold='0.5': must be"),
        ({"threshold": None}, "threshold=None: must be"),
        ({"threshold": [0.5] * 4}, "threshold: there are 4, but 5 labels"),
        ({"threshold": [0.5] * 4 + [2]}, r"threshold\[4\]=2: must be"),
        ({"temperature": float("inf")}, "temperature=inf: must be a number from 0.001 to 1000"),
        ({"temperature": 0}, "temperature=0: must be"),
        ({"temperature": False}, "temperature=False: must be"),
        ({"temperature": 10**400}, "temperature=1000.*: must be"),
        ({"labels": "01234"}, "labels='01234': must be a list"),
        ({"labels": [0, 1, 2, 3, 4]}, r"labels\[0\]=0: must be a text"),
        ({"labels": [*"abcd", " "]}, r"labels\[4\]=' ': must be a text"),
        ({"labels": [*"abcd", "a"]}, "labels: 'a' is there 2 times"),
        ({"labels": [*"abcd"]}, "labels: there are 4, but model.num_classes=5"),
        ({"labels": [*"abcd", "\ud800"]}, r"labels\[4\]='\\ud800': is no valid Unicode"),
        ({"weights_sha256": 7}, "weights_sha256=7: must be 64"),
    ],
)
def test_what_cannot_be_or_cannot_be_done_is_refused_by_its_key(folder, changes, told):
    edit(folder, **changes)
    error = refuses(folder)
    assert error.message.startswith(f"{folder / 'inference.json'}: ")
    assert re.search(told, error.message), error.message
    error.message.encode()  # can be printed


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{", b"\xff", b"", b"9" * 5000])
def test_what_is_no_object_is_refused(folder, content):
    (folder / "inference.json").write_bytes(content)
    assert "inference.json: " in refuses(folder).message


def test_all_faults_are_told_at_once(folder):
    edit(folder, threshold=7, temperature=-1, labels=["a"])
    told = refuses(folder).message
    assert all(key in told for key in ("threshold=7", "temperature=-1", "labels: there are 1"))


def test_a_newer_format_asks_for_an_upgrade(folder):
    edit(folder, format=2, threshold={"of": "another kind"})
    assert "pgrade" in refuses(folder).hint


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_changed_bit_of_the_weights_is_noticed(folder, place):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    error = refuses(folder)
    assert error.message.startswith(f"{path}: damaged") and "SHA-256" in error.message


def change_bias(folder, change):
    path = folder / "weights.safetensors"
    arrays = safetensors.numpy.load(path.read_bytes())
    arrays["head/fc/bias"] = change(arrays["head/fc/bias"].copy())
    path.write_bytes(safetensors.numpy.save({k: v for k, v in arrays.items() if v is not None}))
    forget(folder, "weights_sha256")


def with_nan(array):
    array[-1] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_nan, "head/fc/bias: holds numbers that are not finite"),
        (lambda a: a.astype(np.int32), "head/fc/bias: is int32, but must be float32"),
        (lambda a: a[:4], r"head/fc/bias: is (4,), but must be (5,)"),
        (lambda a: None, "lacks head/fc/bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_file_and_array(folder, change, told):
    change_bias(folder, change)
    assert refuses(folder).message == f"{folder / 'weights.safetensors'}: {told}"


def test_arrays_that_the_model_lacks_are_refused(folder):
    path = folder / "weights.safetensors"
    arrays = safetensors.numpy.load(path.read_bytes())
    path.write_bytes(safetensors.numpy.save(arrays | {"more": np.zeros(3, np.float32)}))
    forget(folder, "weights_sha256")
    assert "has more than the model: more" in refuses(folder).message


@pytest.mark.parametrize("content", [b"", b"\xff" * 99, b"\x05\0\0\0\0\0\0\0{{{{{"])
def test_weights_that_are_no_safetensors_are_refused(folder, content):
    (folder / "weights.safetensors").write_bytes(content)
    forget(folder, "weights_sha256")
    assert "weights.safetensors: not a safetensors file" in refuses(folder).message


def test_a_missing_file_is_named(folder):
    (folder / "weights.safetensors").unlink()
    assert "weights.safetensors: there is no such file" in refuses(folder).message


def test_bundles_of_earlier_versions_are_read(folder, caplog):
    caplog.set_level(logging.INFO, "mlcls_jax")
    forget(folder, "weights_sha256", "temperature", "preprocess")
    bundle = read_bundle(folder)
    assert (bundle.labels, bundle.temperature) == (LABELS, 1.0)
    assert "has no checksum" in caplog.text


def test_a_bundle_that_could_not_be_read_is_not_written(folder, small):
    bundle = read_bundle(small)
    network, variables = bundle.model.network, bundle.model.variables
    with pytest.raises(WeightsError, match="'a' is there 5 times"):
        write_bundle(folder, network.config, variables, labels=("a",) * 5, threshold=0.5, facts={})
    assert read_bundle(folder).labels == LABELS


def test_what_users_put_beside_a_bundle_stays_there(folder, small):
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "plots/a.png").write_bytes(b"picture")
    (folder / "link").symlink_to("nowhere")
    copy_bundle(read_bundle(small), small, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "plots/a.png").read_bytes() == b"picture"
    assert (folder / "link").is_symlink()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_weights_are_readable_by_whom_the_umask_allows(folder, small):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in small.iterdir()}
    probe = folder / "probe"
    probe.touch()
    assert modes == {stat.S_IMODE(probe.stat().st_mode)}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_who_reads_while_a_bundle_is_replaced_gets_one_of_the_two(
    small, tmp_path, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    folder, other = tmp_path / "model", write_small(tmp_path / "other", "PP-LCNet_x0_25_ML")
    bundles = {path: read_bundle(path) for path in (small, other)}
    names = {bundle.model.network.config.name for bundle in bundles.values()}
    copy_bundle(bundles[small], small, folder)
    is_over, failed = threading.Event(), []

    def replace():
        try:
            while not is_over.is_set():
                for source, bundle in bundles.items():
                    copy_bundle(bundle, source, folder)
        except BaseException as error:
            failed.append(error)
            raise

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = {read_bundle(folder).model.network.config.name for _ in range(8)}
    finally:
        is_over.set()
        writer.join()
    assert found <= names and not failed


def test_a_file_in_place_of_a_bundle_is_told_with_the_way_out(tmp_path):
    (tmp_path / "m.pdparams").touch()
    with pytest.raises(WeightsError, match=r"m\.pdparams: is a file, .*\n.*--weights FILE"):
        read_bundle(tmp_path / "m.pdparams")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fit": "stretch"}, "preprocess.fit='stretch': must be one of squeeze, pad, crop"),
        ({"fit": ["pad"]}, "preprocess.fit=.* must be one of"),
        ({"fit": "crop"}, "preprocess.resize_short=None: must be a whole number, at least"),
        ({"fit": "crop", "resize_short": 31}, "preprocess.resize_short=31: must be"),
        ({"fit": "pad", "fill": [0, 0, 0]}, "preprocess.fill=.*: this version does nothing but"),
        ({"resize_short": 40}, "preprocess.resize_short=40: is not known"),
    ],
)
def test_a_fit_that_is_not_done_here_is_refused(change, told, tmp_path):
    path = write_small(tmp_path / "bundle") / "inference.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    assert "fit" not in described["preprocess"]  # versions before there was any read it
    described["preprocess"] |= change
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(WeightsError, match=told):
        read_bundle(tmp_path / "bundle")
