"""create_model and create_pipeline, as their users call them; PaddleX' command line."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

from mlcls_jax import config as schema
from mlcls_jax import create_model, create_pipeline, models
from mlcls_jax.config import Config
from mlcls_jax.errors import InputError, UserError, WeightsError
from mlcls_jax.inference.api import pipeline_config
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.official import COCO_LABELS
from mlcls_jax.inference.results import Result
from mlcls_jax.models import weights
from mlcls_jax.modes.predict import open_input, predict
from tests.helpers.bundles import LABELS, write_images, write_small
from tests.helpers.commands import mlcls
from tests.helpers.web import serve

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("bundle"), threshold=0.2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 3)


@pytest.fixture(scope="module")
def expected(folder, paths):
    return list(create_model(model_dir=folder).predict(paths))


def test_importing_create_model_is_light():
    program = (
        "import sys; from mlcls_jax import create_model, create_pipeline;"
        "print(*sys.modules)"
    )  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    loaded = {name.partition(".")[0] for name in process.stdout.split()}
    assert not loaded & {"optax", "orbax", "grain", "tensorflow", "flax", "jax", "numpy", "PIL"}


def test_a_model_of_ones_own_needs_no_name(folder, paths, expected):
    results = list(create_model("PP-LCNet_x0_25_ML", str(folder), "cpu").predict(paths[0]))
    assert results == expected[:1]
    higher = create_model(model_dir=folder, threshold=0.99)
    assert all(s > 0.99 for r in higher.predict(paths) for s in r["scores"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A classifier of 5 labels without ML-Decoder, and its weights in Paddle's names."""
    model = models.create("PP-LCNet_x0_25", num_classes=5, seed=1)
    path = tmp_path_factory.mktemp("weights") / "m.pdparams"
    return model, weights.save(model, path, "paddle")


def test_a_weight_file_predicts_under_the_name_of_its_model(small, tmp_path, caplog):
    model, path = small
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    expected = np.asarray(jax.nn.softmax(model(image[None])))[0]
    (result,) = create_model("PP-LCNet_x0_25", weights=path).predict(image)
    np.testing.assert_allclose(result.all_scores, expected, atol=1e-6)
    assert sorted(result["label_names"]) == ["0", "1", "2", "3", "4"]  # the best five
    assert "its 5 labels are numbered" in caplog.text
    caplog.clear()
    (tmp_path / "label.txt").write_text("\n".join(f"{i} {n}" for i, n in enumerate(LABELS)))
    named = create_model("PP-LCNet_x0_25", weights=path, labels=tmp_path / "label.txt")
    assert named.bundle.labels == LABELS and not caplog.text
    assert create_model("PP-LCNet_x0_25", path, labels=LABELS).bundle.labels == LABELS


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {"weights": "{path}"}, "does not say which model it is of"),
        (("ResNet50",), {"weights": "{path}"}, "m.pdparams: .*of the backbone are missing"),
        (("PP-LCNet_x0_25_ML",), {"weights": "{path}"}, "no classifier of PP-LCNet_x0_25_ML"),
        (("PP-LCNet_x0_25",), {"weights": "{path}", "labels": ["a"]}, "x0_25 with 1 labels"),
        (("PP-LCNet_x0_25",), {"weights": "{path}", "labels": "none.txt"}, "labels=none.txt: "),
        (("PP-LCNet_x0_25",), {"weights": "none.pth"}, "none.pth: there is no such file"),
        ((None, "{path}"), {"weights": "{path}"}, "only one of them"),
        ((None, "{folder}"), {"labels": LABELS}, "a bundle has its own"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_told(small, folder, arguments, options, said):
    places = {"path": small[1], "folder": folder}

    def placed(value):
        return value.format(**places) if isinstance(value, str) else value

    with pytest.raises(UserError, match=said):
        create_model(*map(placed, arguments), **{k: placed(v) for k, v in options.items()})


def test_a_weight_file_inside_a_bundle_means_the_bundle(folder):
    file = folder / "weights.safetensors"
    for given in ({"model_dir": file}, {"weights": file}, {"weights": str(folder)}):
        assert is_bundle(create_model(**given), folder)


def is_bundle(predictor, folder):
    """Whether it has the bundle in a folder, which need not be compiled to tell."""
    return predictor.bundle.weights_sha256 == read_bundle(folder).weights_sha256


def test_what_was_exported_is_predicted_with_by_the_bundle_beside_it(tmp_path, folder):
    onnx = pytest.importorskip("onnx")
    (tmp_path / "bundle").symlink_to(folder)
    assert create_model(model_dir=tmp_path).bundle.labels == LABELS
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph, producer_name="mlcls_jax")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match="which cannot be read back") as error:
        create_model("PP-LCNet_x0_25_ML", tmp_path / "model.onnx")
    assert "the folder `bundle`" in str(error.value.hint)


def test_a_weight_file_with_another_head_than_its_models_own_leads_to_the_bundle(tmp_path, folder):
    path = weights.save(read_bundle(folder).model, tmp_path / "m.pdparams", "paddle")
    with pytest.raises(WeightsError, match="does not hold all of") as error:
        create_model("PP-LCNet_x0_25_ML", weights=path, labels=LABELS)
    assert "give the run or bundle that it is from as model_dir" in str(error.value.hint)


def test_eighty_labels_are_cocos(tmp_path):
    model = models.create("PP-LCNet_x0_25", num_classes=80)
    path = weights.save(model, tmp_path / "m.safetensors", "paddle")
    assert create_model("PP-LCNet_x0_25", weights=path).bundle.labels == COCO_LABELS


def test_what_create_model_refuses(folder, tmp_path):
    with pytest.raises(InputError, match="needs model_name or model_dir"):
        create_model()
    with pytest.raises(InputError, match="holds PP-LCNet_x0_25_ML, not ResNet50_ML"):
        create_model("ResNet50_ML", folder)
    with pytest.raises(InputError, match="PP-LCNet_x0_5_ML: no weights are published for it\n"):
        create_model("PP-LCNet_x0_5_ML")
    with pytest.raises(InputError, match="PP-LCNet: no weights .* no model of this name either"):
        create_model("PP-LCNet")
    with pytest.raises(WeightsError, match="inference.json: there is no such file"):
        create_model(model_dir=tmp_path)


def test_a_published_model_is_fetched_once_and_kept(tmp_path, monkeypatch, paths):
    """From a server that has one weight file in the published name and format."""
    model = models.create("PP-LCNet_x1_0_ML", num_classes=80, seed=3)
    weights.save(model, tmp_path / "PP-LCNet_x1_0_ML_pretrained.pdparams", "paddle")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serve(tmp_path) as server:
        monkeypatch.setenv("MLCLS_MODELS_URL", f"{server.url}/")
        for _ in range(2):
            fetched = create_model("PP-LCNet_x1_0_ML")
            assert fetched.bundle.labels == COCO_LABELS and fetched.bundle.threshold == 0.5
    assert server.asked == ["GET /PP-LCNet_x1_0_ML_pretrained.pdparams HTTP/1.1"]
    assert fetched.bundle.model.network.config == model.network.config
    jax.tree.map(np.testing.assert_array_equal, fetched.bundle.model.variables, model.variables)


def test_coco_has_eighty_labels():
    assert len(set(COCO_LABELS)) == 80
    some = {0: "person", 9: "traffic light", 39: "bottle", 46: "banana", 60: "dining table"}
    assert {i: COCO_LABELS[i] for i in some} == some  # 39, 46, 60: from the original's example


def write_pipeline(path, folder, **changes):
    settings = yaml.safe_load(pipeline_config())
    part = settings["SubModules"]["ImageMultiLabelClassification"]
    part |= {"model_name": None, "model_dir": str(folder), **changes}
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_pipeline_file(tmp_path, folder, paths, expected):
    path = write_pipeline(tmp_path / "own.yaml", folder, batch_size=2)
    pipeline = create_pipeline(path)
    assert pipeline.model.batch_size == 2
    assert list(pipeline.predict([str(p) for p in paths])) == expected
    (result,) = pipeline.predict({"img": str(paths[1])})
    assert result == expected[1]
    cats = create_pipeline(write_pipeline(path, folder, threshold={"default": 1, "cat": 0}))
    assert [r["label_names"] for r in cats.predict(paths[0])] == [["cat"]]


def test_a_pipeline_file_filled_in_as_its_comment_says_works(tmp_path, small, folder):
    path = tmp_path / "pipeline.yaml"
    path.write_text(pipeline_config().replace("model_dir: null", f"model_dir: {folder}"))
    assert is_bundle(create_pipeline(path).model, folder)
    text = pipeline_config().replace("model_dir: null", f"model_dir: {small[1]}")
    (tmp_path / "names.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(LABELS)))
    text = text.replace("labels: null", f"labels: {tmp_path / 'names.txt'}")
    path.write_text(text.replace("PP-HGNetV2-B6_ML", "PP-LCNet_x0_25"))
    assert create_pipeline(path).model.bundle.labels == LABELS


def test_the_pipelines_two_names(folder, paths, expected):
    pipeline = create_pipeline("image_multilabel_classification", "cpu", model_dir=folder)
    assert list(pipeline.predict(paths[0])) == expected[:1]
    other = create_pipeline("multi_label_image_classification", "cpu", model_dir=folder)
    assert is_bundle(other.model, folder)


@pytest.mark.parametrize(
    ("pipeline", "content", "said"),
    [
        ("ocr", None, "ocr: there is no such pipeline"),
        ("none.yaml", None, "none.yaml: cannot be read"),
        ("a.yaml", "a: [", "a.yaml:1: is not YAML"),
        ("a.yaml", "a: 1", "a.yaml: lacks pipeline_name or SubModules.ImageMultiLabel"),
        ("a.yaml", pipeline_config().replace("batch_size", "batchsize"), "unknown key 'batchsize'"),
        ("a.yaml", pipeline_config().replace("batch_size: 4", "batch_size: 0"), "batch_size is 0"),
        ("a.yaml", pipeline_config().replace("name: image_", "name: ocr_", 1), "pipeline_name is"),
    ],
)
def test_wrong_pipelines_are_told(tmp_path, monkeypatch, pipeline, content, said):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(pipeline).write_text(content)
    with pytest.raises(InputError, match=said):
        create_pipeline(pipeline)


def test_the_command_line_of_paddlex(tmp_path, folder, paths, expected):
    process = mlcls("--get_pipeline_config", "image_multilabel_classification", cwd=tmp_path)
    path = tmp_path / "image_multilabel_classification.yaml"
    assert process.returncode == 0 and path.read_text() == pipeline_config()
    again = mlcls("--get_pipeline_config", "image_multilabel_classification", cwd=tmp_path)
    assert again.returncode == 1 and "is there already" in again.stderr

    write_pipeline(path, folder)
    flags = ("--pipeline", path, "--input", paths[0].parent, "--device", "cpu")
    process = mlcls(*flags, "--save_path", "output", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    for image, result in zip(paths, expected, strict=True):
        assert json.loads((tmp_path / f"output/{image.stem}_res.json").read_text()) == result.json
        assert (tmp_path / f"output/{image.stem}_res.png").stat().st_size > 1000
        assert json.dumps(result.json, indent=4, ensure_ascii=False) in process.stdout
    assert "3 images" in process.stderr + process.stdout


def test_pictures_of_earlier_results_are_not_labelled(tmp_path, folder, paths):
    images = tmp_path / "images"
    images.mkdir()
    for path in paths:
        shutil.copy(path, images)
    shutil.copy(paths[0], images / "high_res.png")  # an image of the user's own
    twin = images / f"{paths[0].stem}.bmp"  # the results of one of them have its whole name
    Image.open(paths[0]).convert("RGB").save(twin)
    write_pipeline(tmp_path / "pipeline.yaml", folder)
    flags = ("--pipeline", tmp_path / "pipeline.yaml", "--input", images, "--device", "cpu")
    count = len(paths) + 2
    for place, left_out in ((images / "sub", 0), (images, count), (images, 2 * count)):
        process = mlcls(*flags, "--save_path", place, cwd=tmp_path)
        assert process.returncode == 0, process.stderr
        assert f"{count} images" in process.stdout
        assert ("left out" in process.stderr) == (left_out > 0)
        assert not left_out or f"{left_out} pictures of earlier results" in process.stderr


def save_all(given, output):
    """What the command line saves for an input, without a model's answers."""
    inputs, save = open_input(given)
    for path in inputs:
        image = np.zeros((4, 4, 3), np.uint8)
        kinds = {"labels": ["a"], "threshold": 0.5, "image": image, "input_path": path}
        save(Result.from_scores(np.float32([1]), **kinds), output)
    return sorted(str(path.relative_to(output)) for path in output.rglob("*.*") if path.is_file())


@pytest.mark.parametrize("pattern", ["", "/", "/**/*.*g", "/*/*/c.png"])
def test_results_lie_in_folders_as_the_images_do(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    names = ["a.jpg", "a.png", "2024.05.01/a.png", "2024.05.01/d.json/c.png", "x/é.png/c.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "in" / name)
    stems = ["a", "a.png", "2024.05.01/a", "2024.05.01/d.json/c", "x/é.png/c"]
    stems = stems[3:] if "c" in pattern else stems
    suffixes = [".jpg", ".png", ".png", ".png", ".png"][-len(stems) :]
    files = [f"{stem}_res.json" for stem in stems]
    files += [f"{stem}_res{suffix}" for stem, suffix in zip(stems, suffixes, strict=True)]
    for number, root in enumerate(("in", f"{tmp_path}/in", f"file://{tmp_path}/in")):
        if number == 2 and "*" in pattern:
            continue  # `*` is a letter there
        assert save_all(f"{root}{pattern}", tmp_path / f"out{number}.jpg") == sorted(files)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_folders_that_are_not_utf_8_get_names_that_are(tmp_path):
    folder = tmp_path / os.fsdecode(b"in\xff/caf\xe9")
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    files = ["caf%E9/a_res.json", "caf%E9/a_res.png"]
    assert save_all(str(folder.parent), tmp_path / "out") == files
    assert save_all(str(folder / "a.png"), tmp_path / "two") == ["a_res.json", "a_res.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_mode_predict_bears_every_name(tmp_path, folder, paths, caplog):
    images = tmp_path / "in"
    images.mkdir()
    shutil.copy(paths[0], images / os.fsdecode(b"\xd6\xd0.png"))
    shutil.copy(paths[1], images / f"{'x' * 249}.png")
    (images / os.fsdecode(b"\xd6.jpg")).write_bytes(b"broken")
    values = schema.default()
    options = {"mode": "predict", "data.on_error": "skip", "predict.threshold": 0.0}
    options |= {"predict.input": str(images), "predict.model_dir": str(folder)}
    values.update_from_flattened_dict(options)
    with caplog.at_level("INFO"):
        told = predict(schema.parse(values), tmp_path / "v1.0").to_json()
    assert told["images"] == 2 and rf"{images}/\xd6.jpg: this is not" in told["skipped_images"][0]
    json.dumps(told, ensure_ascii=False).encode("utf-8")
    caplog.text.encode("utf-8")
    saved = sorted(path.name for path in (tmp_path / "v1.0" / "predictions").iterdir())
    assert saved[:2] == ["%D6%D0_res.json", "%D6%D0_res.png"]
    assert len(saved) == 4 and all(name.startswith("x" * 200) for name in saved[2:])


def test_results_do_not_go_into_a_file(tmp_path, folder, paths):
    (tmp_path / "plain").write_text("mine")
    for name in ("plain", "result.json", "picture.PNG"):
        process = mlcls(
            "--model_dir", folder, "--input", paths[0], "--save_path", name, cwd=tmp_path
        )
        assert process.returncode == 1
        assert f"error: {name}: results are saved into a folder" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]
    assert (tmp_path / "plain").read_text() == "mine"


def test_faults_on_the_command_line_are_one_message(tmp_path, folder, paths):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    flags = ("--model_dir", folder, "--input")
    process = mlcls(*flags, broken, cwd=tmp_path)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-2].startswith(f"error: {broken}: this is not an image")
    process = mlcls(*flags, tmp_path, "--on_error", "yield", cwd=tmp_path)
    assert process.returncode == 0 and '"error": "' in process.stdout
    process = mlcls("--input", paths[0], "--pipeline", "ocr", cwd=tmp_path)
    assert process.returncode == 1 and "ocr: there is no such pipeline" in process.stderr
    process = mlcls(*flags, paths[0], "--threshold", "[0.5", cwd=tmp_path)
    assert process.returncode == 2 and "--threshold" in process.stderr


def test_weights_on_the_command_line(tmp_path, small, paths):
    flags = ("--model_name", "PP-LCNet_x0_25", "--input", paths[0], "--device", "cpu")
    process = mlcls("predict", *flags, "--model_dir", small[1], cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "1 images" in process.stdout and "labels are numbered" in process.stderr


def test_the_mode_takes_a_weight_file_of_the_models_name(tmp_path, small, paths):
    config = Config(
        model=replace(Config().model, name="PP-LCNet_x0_25"),
        predict=replace(Config().predict, input=str(paths[0]), model_dir=str(small[1])),
    )
    assert predict(config, tmp_path).images == 1
    assert (tmp_path / f"predictions/{paths[0].stem}_res.json").exists()


def test_the_input_is_looked_at_before_a_model_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLS_MODELS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process = mlcls("predict", "--input", "missing.png", cwd=tmp_path)
    assert process.returncode == 1 and "missing.png: there is no such" in process.stderr
    assert not (tmp_path / "cache/mlcls_jax/weights").exists()


def test_the_overview_names_every_command(tmp_path):
    from mlcls_jax.commands import COMMANDS

    process = mlcls("--help", cwd=tmp_path)
    for word in (
        *(c.name for c in COMMANDS.values() if c.group != "hidden"),
        "--serve",
        "--pipeline",
    ):
        assert f" {word} " in process.stdout


def test_a_mistyped_command_gets_the_right_spelling(tmp_path):
    process = mlcls("evalute", "--config=x.py", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "error: evalute: there is no such command",
        "Did you mean evaluate?",
    ]
