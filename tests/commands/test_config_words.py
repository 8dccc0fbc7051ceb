"""`mlcls config` and `mlcls completion`: options explained, and proposed to a shell."""

import json
import subprocess

import pytest

from mlcls_jax import recipes
from mlcls_jax.command_line import FlagError
from mlcls_jax.commands import COMMANDS, completion, config, option_facts


def test_an_option_is_explained_with_recipes_contradictions_and_readers():
    told = config.run(["explain", "train.accumulate"])
    for part in (
        "train.accumulate: gradient accumulation",
        "int, at least 1",
        "--config.train.accumulate=1",
        "train: {accumulate: 1}",
        "train.accumulate=…: must divide train.batch_size=…",
        "training/step.py:",
        "going on    stays",
    ):
        assert part in told
    found = option_facts.recipe_values("train.batch_size", 64)
    assert {"lcnet:coco", "hgnetv2:coco"} <= set(found["256"])
    assert config._by_file(["a:b", "a:c", "d:e"]) == "a:b,c  d:e"
    assert config._meant("lr") == ["optimizer.learning_rate"]
    assert config._meant("threshold") == ["evaluate.threshold", "predict.threshold"]
    with pytest.raises(FlagError, match=r"train.epoch: there .* did you mean train.epochs\?"):
        config.run(["explain", "train.epoch"])


def test_who_reads_an_option_is_found_through_arguments_and_variables():
    for key, place in {
        "loss.clip": "training/loss.py:",
        "optimizer.beta1": "training/optimizer.py:",
        "check_dataset.split.group": "data/split.py:",
        "train.compile_cache": "commands/mode.py:",
    }.items():
        assert any(found.startswith(place) for found in option_facts.readers(key))


def test_options_are_shown_with_the_values_of_a_file_however_it_is_given():
    shown = config.run(["show", "train.epochs", "--config", "lcnet", "--config.train.epochs=7"])
    assert shown.endswith(
        "--config.train.epochs=7  (int, at least 1; default: 40)\n"
        "      passes over the training images"
    )
    with pytest.raises(FlagError, match="configs: there is no such key"):
        config.run(["show", "configs"])


def test_the_schema_for_editors_knows_base_and_every_key():
    told = json.loads(config.run(["schema"]))
    assert "lcnet:coco" in told["properties"]["base"]["enum"]
    assert told["properties"]["train"]["properties"]["epochs"]["minimum"] == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [name for name, command in COMMANDS.items() if command.group != "hidden"]),
        ("tra", ["train"]),
        ("help exp", ["export"]),
        ("completion ", ["bash", "zsh", "fish", "propose"]),
        ("config ex", ["explain"]),
        ("config explain see", ["seed"]),
        ("config show check_dataset.sp", None),
        ("--config=lcnet:co", ["--config=lcnet:coco"]),
        ("train --config.train.ep", ["--config.train.epochs="]),
        ("train --config.model.task=", ["--config.model.task=multilabel",
                                        "--config.model.task=single"]),
        ("train --config.loss.size_sum=T", ["--config.loss.size_sum=True"]),
        ("pack --verif", ["--verify"]),
        ("pack photos", []),
        ("nonsense --workd", []),
    ],
)  # fmt: skip
def test_a_line_is_completed(line, expected):
    found = completion.proposals(line.split(" "))
    if expected is None:
        assert "check_dataset.split" in found and "check_dataset.split.group" in found
    else:
        assert found == expected


def test_bash_puts_a_proposal_in_the_place_of_the_part_that_it_completes():
    script = f"""
    {completion.run(["bash"])}
    mlcls() {{ echo --config=lcnet:coco; echo --config=lcnet:single; }}
    COMP_LINE="mlcls train --config=lcnet:" COMP_POINT=27
    _mlcls mlcls "" ":"
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("coco single\n", "")


def test_recipes_are_found_by_name():
    assert {"lcnet:demo", "resnet:coco2014"} <= set(recipes.names())
    assert recipes.load("lcnet").to_dict() == recipes.load("lcnet:demo").to_dict()
    with pytest.raises(recipes.ConfigError, match="lcnet:cocoa: .* did you mean lcnet:coco?"):
        recipes.load("lcnet:cocoa")
