"""`mlcls push` and `hf://owner/name`, against a stand-in for the hub; and the card of a model."""

import argparse
import json
import re
import sys

import pytest
import yaml

from mlcls_jax import command_line
from mlcls_jax import config as schema
from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import (
    audit,
    backends,
    convert,
    export,
    from_words,
    predict,
    push,
    score,
    studio,
)
from mlcls_jax.config import add_arguments
from mlcls_jax.curation.subject import find_subject
from mlcls_jax.errors import ConfigError, InputError, UserError, WeightsError
from mlcls_jax.inference.bundle import read_bundle, update_bundle
from mlcls_jax.inference.opening import open_model
from mlcls_jax.reports.model_card import Facts, model_card
from tests.helpers.bundles import LABELS, write_small
from tests.helpers.hub import TOKEN, Hub, commit_name
from tests.helpers.photos import write_photos
from tests.helpers.tiers import need

ADDRESS = "hf://me/name"


def write_run(folder):
    """Write a run with a bundle, as far as a card tells of it."""
    write_small(folder / "best_model", threshold=(0.1, 0.2, 0.3, 0.4, 0.5))
    config = schema.Config(
        data=schema.Data(dir="/home/me/photos"),
        model=schema.Model(weights="/home/me/earlier/best_model"),
        train=schema.Train(epochs=3),
    )
    (folder / "config.yaml").write_text(schema.to_yaml(config))
    judged = {
        "done_flag": True, "MultiLabelMAP": 0.75, "SampleAccuracy": 0.9, "images": 100,
        "intervals": {"SampleAccuracy": [0.8256, 0.9448]}, "warnings": ["Look here."],
        "average_precision": dict.fromkeys(LABELS, 0.5),
        "model_dir": f"{folder}/best_model", "threshold": 0.5,
    }  # fmt: skip
    (folder / "evaluate_result.json").write_text(json.dumps(judged))
    counts = {"train": {"images": 1234}, "validation": {"images": 100}}
    (folder / "data.json").write_text(json.dumps(counts))
    return folder


def test_a_dry_run_writes_a_card_of_all_that_is_known(tmp_path):
    run = write_run(tmp_path / "run")
    flags = ["--license", "mit", "--dataset", "me/photos", "--dry_run"]
    told = push.run([str(run), "me/name", *flags])
    assert "Nothing was sent" in told and re.search(r"weights.safetensors +\d", told)
    card = (run / "best_model" / push.DRAFT).read_text()
    _, front, text = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert (front["license"], front["datasets"]) == ("mit", ["me/photos"])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.75
    for part in (
        'create_model("hf://me/name")',
        "1,234 images to train on, 100 images to validate",
        "weights of an earlier run, or a file",
        "| SampleAccuracy | 0.9000 | 0.8256 to 0.9448 |",
        "| MultiLabelMAP | 0.7500 | – |",
        "| fire truck | 0.300 | 0.5000 |",
        "train:\n  epochs: 3\n",
        "- Look here.",
        "100 validation images are few",
    ):
        assert part in text
    assert "/home/me" not in card and "done_flag" not in card


def test_a_bundle_alone_has_a_card_that_says_what_is_not_known(tmp_path):
    bundle = write_small(tmp_path / "bundle", labels=("a|b", "<b>", "c\nd", "e", "f"))
    push.run([str(bundle), "me/name", "--dry_run"])
    card = (bundle / push.DRAFT).read_text()
    assert card.count("Not recorded") == 3 and "license" not in card
    assert "| a\\|b |\n| &lt;b&gt; |\n| c\\nd |\n" in card
    assert "Labels are reported above 0.5. Scores are not calibrated" in card


def test_the_card_of_one_label_an_image_reports_the_best(tmp_path):
    model = {"name": "PP-LCNet_x1_0", "task": "single", "image_size": [224, 224]}
    card = model_card(Facts({"model": model, "labels": ["a"], "threshold": None}, 10), "me/name")
    assert "one of 1 label an image" in card and "The best label is reported." in card


def test_a_name_that_is_none_is_refused_before_anything_is_read():
    with pytest.raises(InputError, match="me: is no name on the hub"):
        push.run(["nowhere", "me"])


@pytest.mark.parametrize(
    ("kind", "argv"),
    [
        (export.Arguments, [ADDRESS, "--output", "there"]),
        (backends.Arguments, [ADDRESS]),
        (score.Request, ["--model_dir", ADDRESS, "--input", "photos", "--output", "there"]),
        (predict.Arguments, ["--model_dir", ADDRESS]),
        (studio.Arguments, ["--model_dir", ADDRESS]),
        (convert.Arguments, ["photos", "there", "--model_dir", ADDRESS]),
        (audit.Arguments, [ADDRESS]),
        (from_words.Arguments, ["photos", "a,b", "--teacher_weights", ADDRESS]),
    ],
    ids=lambda given: given.__module__.rpartition(".")[2] if isinstance(given, type) else "",
)
def test_a_model_of_a_command_may_be_an_address_on_the_hub(kind, argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser, kind)
    given = vars(parser.parse_args(argv)).values()
    assert ADDRESS in given or [ADDRESS] in given  # the studio takes several


def test_a_model_of_a_configuration_may_be_an_address_on_the_hub():
    keys = [key for key in schema.options() if key.endswith((".model_dir", ".teacher"))]
    assert len(keys) == 4
    digits = {"data.source": "digits"}
    schema.changed(schema.Config(), digits | dict.fromkeys(keys, ADDRESS))
    with pytest.raises(FlagError, match=f"{ADDRESS}: is a model and no run"):
        command_line.parse(["mlcls", f"--workdir={ADDRESS}", "--config.mode=evaluate"])
    # Nothing is written into the hub's cache.
    with pytest.raises(ConfigError, match=f"evaluate.model_dir={ADDRESS}: thresholds"):
        schema.changed(
            schema.Config(), digits | {"evaluate.model_dir": ADDRESS, "mode": "thresholds"}
        )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A stand-in for the hub, which its library takes for the real one."""

    def forget():
        for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
            monkeypatch.delitem(sys.modules, name)

    forget()  # it reads its environment once
    with Hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in has LFS alone
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        need("huggingface_hub")
        yield made
    forget()


@pytest.mark.slow
def test_a_model_goes_to_the_hub_and_comes_back(tmp_path, server, monkeypatch):
    run = write_run(tmp_path / "run")
    assert f"{server.url}/me/name" in push.run([str(run), "me/name", "--private"])
    files = server.commits["me/name"][-1]
    assert files.keys() == {"README.md", "inference.json", "weights.safetensors"}
    assert server.private == {"me/name"}
    server.commits["me/open"] = [{}]
    with pytest.raises(UserError, match="me/open: is there already, and open to everybody"):
        push.run([str(run), "me/open", "--private"])
    assert server.commits["me/open"] == [{}]
    here, there = open_model(None, run), open_model("hf://me/name", None)
    assert (there.weights_sha256, there.labels) == (here.weights_sha256, here.labels)
    # Other thresholds come by themselves; other weights under the same name are told.
    (tmp_path / "card.md").write_text(files["README.md"].decode().replace("## Limits", "## Mine"))
    update_bundle(run / "best_model", threshold=0.9, temperature=1.0, calibration={})
    push.run([str(run), "me/name", "--card", str(tmp_path / "card.md")])
    assert b"## Mine" in server.commits["me/name"][-1]["README.md"]
    assert open_model(None, "hf://me/name").threshold == 0.9
    first = commit_name("me/name", 1)
    assert open_model(None, f"hf://me/name@{first}").threshold == here.threshold
    done = export.run(["hf://me/name", "--output", str(tmp_path / "out"), "--format", "stablehlo"])
    assert "scores differ" in done
    copied = read_bundle(tmp_path / "out" / "bundle")
    assert (copied.weights_sha256, copied.threshold) == (here.weights_sha256, 0.9)
    with pytest.raises(ConfigError, match="me/name: is no run, whose data would be known"):
        find_subject("hf://me/name", None)
    assert find_subject("hf://me/name", str(write_photos(tmp_path / "photos"))).model
    server.commits["me/other"] = [{"model.safetensors": b""}]
    with pytest.raises(WeightsError, match="hf://me/other: holds no bundle"):
        read_bundle("hf://me/other")
    write_small(run / "best_model", embed_dim=64)
    push.run([str(run), "me/name"])
    with pytest.raises(WeightsError, match="that of the first file from there was"):
        open_model(None, "hf://me/name")
    with pytest.raises(WeightsError, match="hf://me/nothing: cannot be fetched"):
        open_model("hf://me/nothing", None)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="me/name: the hub says: .*401") as caught:
        push.run([str(run), "me/name"])
    assert "HF_TOKEN" in caught.value.hint
