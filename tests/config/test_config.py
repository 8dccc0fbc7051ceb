"""The schema: what it accepts, what it refuses and in which words, and the shipped recipes."""

import dataclasses
import importlib.util
import inspect
import json
import math
import os
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ml_collections import ConfigDict

from mlcls_jax import config as schema
from mlcls_jax.config import Config, default, parse
from mlcls_jax.errors import ConfigError

OPTIONS = schema.options()
REPOSITORY = Path(__file__).parents[2]
CONFIG_FILES = sorted((REPOSITORY / "mlcls_jax" / "recipes").glob("[!_]*.py"))
GOLDEN = Path(__file__).parents[1] / "data" / "recipes.yaml"
RENEW = "MLCLS_RENEW_GOLDENS"


def plain(changes: dict[str, Any]) -> ConfigDict:
    """A complete configuration with `changes`, by dotted name; no type is checked yet."""
    values = schema.to_dict(Config())
    for key, value in ({"data.dir": "photos", "predict.input": "photos"} | changes).items():
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return ConfigDict(values, type_safe=False)


def faults(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(plain(changes))
    return caught.value.message.splitlines()


def value_of(config: Config, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def is_optional(f: dataclasses.Field) -> bool:
    return type(None) in typing.get_args(f.type)


def base_type(f: dataclasses.Field) -> Any:
    return (
        next(a for a in typing.get_args(f.type) if a is not type(None))
        if is_optional(f)
        else f.type
    )


# Where not all that is legal goes together with the other options' defaults.
LEGAL = {
    "loss.options": [[], ["gamma=2", "alpha=0.25"]],
    "evaluate.labels": [[], ["dining table", "猫"]],
    "data.dir": ["a: b # 图片"],
    "predict.input": ["photos"],
    "export.formats": [[], ["litert", "onnx"]],
    "thresholds.objective": ["f1"],
    "thresholds.target": [None],
    "thresholds.confidence": [None],
    "profile.steps": ["3:3", "10:15"],
    "train.resume_from": ["runs/a/epoch_5", None],
    "parallel.fsdp": [1, 8],
    "parallel.tensor": [1, 8],
    "train.accumulate": [1, 64],
    "train.norm_groups": [1],
    "model.task": ["multilabel"],
    "model.embed_dim": [16, 768],
    "model.num_heads": [1, 768],
    "model.image_size": [[8, 8], [8192, 8]],
    "data.feature_views": [0],
    "evaluate.tta": [[], ["flip", "scale:1.15"]],
    "predict.tta": [[], ["scale:2"]],
    "log.trackers": [[], ["wandb", "mlflow"]],
    "data.augment": [[], ["cutout", "randaugment_v4"]],
    "optimizer.lr_multipliers": [[], ["backbone/.*=0.1", "a=b=0"]],
}


def legal_values(key: str) -> list[Any]:
    f, kind = OPTIONS[key], base_type(OPTIONS[key])
    ends = [end for end in (f.metadata["min"], f.metadata["max"]) if end is not None]
    none = [None] if is_optional(f) else []
    if key in LEGAL:
        return LEGAL[key]
    if typing.get_origin(kind) is typing.Literal:
        return [*typing.get_args(kind), *none]
    if typing.get_origin(kind) is tuple:
        return [[end] for end in ends] + none
    return {bool: [True, False], str: ["ein Ordner", "图片"]}.get(kind, [*ends, f.default]) + none


def illegal_values(key: str) -> list[Any]:
    f, kind = OPTIONS[key], base_type(OPTIONS[key])
    low, high = f.metadata["min"], f.metadata["max"]
    outside = [end + 1 if end is high else end - 1 for end in (low, high) if end is not None]
    none = [] if is_optional(f) else [None]
    if typing.get_origin(kind) is tuple:
        items = {
            float: ["0.5", True, None],
            int: ["16", 16.0, True, None],
            str: [16, 16.0, True, None],
        }
        wrong = items[typing.get_args(kind)[0]]
        return [[value] for value in (*wrong, *outside)] + none
    if typing.get_origin(kind) is typing.Literal:
        return ["nonsense", 1, True, *none]
    wrong = {
        bool: [0, 1, 1.0, "true"],
        str: [1, 1.0, True, ["a"]],
        int: [True, 1.0, "1", math.nan, [1]],
        float: [True, "0.1", math.nan, math.inf, -math.inf, [0.1]],
    }
    return [*wrong[kind], *outside, *none]


def test_defaults_are_a_valid_configuration():
    config = default()
    config.data.dir = "photos"
    assert parse(config) == dataclasses.replace(Config(), data=schema.Data(dir="photos"))


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_has_help_and_accepts_its_whole_range(key):
    assert OPTIONS[key].metadata["help"].strip()
    for value in legal_values(key):
        parsed = value_of(parse(plain({key: value})), key)
        assert parsed == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_refuses_other_types_and_values_out_of_range(key):
    for value in illegal_values(key):
        (fault,) = faults({key: value})
        assert fault.startswith(f"{key}={value!r}: must be ")


def test_names_may_be_given_as_one_text():
    for given in (("flip,cutout",), ["flip", "cutout"], "flip,cutout"):
        assert parse(plain({"data.augment": given})).data.augment == ("flip", "cutout")
    pattern = "^a{1,2}=0.5"
    assert parse(plain({"optimizer.lr_multipliers": (pattern,)})).optimizer.lr_multipliers == (
        pattern,
    )


def test_all_faults_are_told_at_once():
    wrong = {key: illegal_values(key)[0] for key in OPTIONS}
    told = faults(wrong | {"train.epoch": 3, "modle.name": "x"})
    assert [line.split("=")[0] for line in told if "=" in line] == list(OPTIONS)
    assert [line for line in told if "no such key" in line] == [
        "modle: there is no such key; did you mean mode?",
        "train.epoch: there is no such key; did you mean train.epochs?",
    ]


def test_faults_say_what_would_be_right():
    assert faults({"train.epochs": 0}) == ["train.epochs=0: must be int, at least 1"]
    assert faults({"train.epochs": "3"}) == ["train.epochs='3': must be int, at least 1"]
    assert faults({"train.ema_decay": 1}) == ["train.ema_decay=1: must be float, 0.0 to 0.999999"]
    assert faults({"optimizer.learning_rate": math.inf}) == [
        "optimizer.learning_rate=inf: must be finite"
    ]
    assert faults({"data.on_error": "rase"}) == [
        "data.on_error='rase': must be one of raise, skip; did you mean raise?"
    ]
    assert faults({"data.epoch_size": 0}) == ["data.epoch_size=0: must be int, at least 1 or None"]


def test_paths_are_of_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    keys = [key for key, f in OPTIONS.items() if f.metadata["path"] in ("local", "model")]
    assert {"predict.output", "export.output", "evaluate.model_dir", "data.val_list"} <= {*keys}
    told = faults(dict.fromkeys(keys, "gs://bucket/x") | {"data.train_list": ""})
    assert [line.partition("=")[0] for line in told] == keys
    assert all("not a URL" in line or "is empty" in line for line in told)
    both = {"data.dir": "~/a", "predict.output": "file:///out%20put"}
    parsed = parse(plain(both))
    assert (parsed.data.dir, parsed.predict.output) == ("/home/me/a", "/out put")


def test_some_inputs_may_be_urls():
    weights = {"model.weights": "hf://owner/name", "predict.input": "https://a.example/x.jpg"}
    assert parse(plain(weights)).model.weights == "hf://owner/name"
    url = {"data.dir": "gs://bucket/data"}
    assert parse(plain({"data.source": "packed"} | url)).data.dir == "gs://bucket/data"
    (fault,) = faults(url)
    assert fault.startswith("data.dir='gs://bucket/data': must be a path on this machine")


def test_whole_numbers_are_accepted_for_floats():
    parsed = parse(plain({"optimizer.learning_rate": 1, "optimizer.clip_norm": 2})).optimizer
    assert (parsed.learning_rate, parsed.clip_norm) == (1.0, 2.0)
    assert isinstance(parsed.learning_rate, float) and isinstance(parsed.clip_norm, float)


def test_a_single_value_or_a_list_is_accepted_for_a_tuple():
    assert parse(plain({"model.image_size": 64})).model.image_size == (64, 64)
    assert parse(plain({"model.image_size": [64, 32]})).model.image_size == (64, 32)


@pytest.mark.parametrize("value", [None, 3, "x", [1]])
def test_a_section_cannot_be_replaced_by_a_value(value):
    (fault,) = faults({"log": value})
    assert fault == "log: is a section; it has log.tensorboard, log.trackers, log.pictures"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train.epoch", "train.epochs"),
        ("epochs", "train.epochs"),
        ("epoch", "train.epochs"),
        ("modle.name", "model.name"),
        ("optimizer.epochs", "train.epochs"),
        ("train.learning_rate", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("train.weights", "model.weights"),
        ("evaluate.batchsize", "evaluate.batch_size"),
        ("num_classes", "model.num_classes"),
        ("Global.mode", "mode"),
        ("xyzzy", None),
    ],
)
def test_the_nearest_option_is_proposed(typed, meant):
    assert schema.nearest(typed) == meant
    assert schema.unknown_key(typed).endswith(
        f"did you mean {meant}?" if meant else "`mlcls config` lists the keys."
    )


def test_an_unknown_key_fails_on_its_line_of_a_config_file():
    config = default()
    with pytest.raises(AttributeError, match='Did you mean "epochs"'):
        config.train.epoch = 3
    with pytest.raises(AttributeError, match='Did you mean "train"'):
        config.trian.epochs = 3
    with pytest.raises(TypeError):
        config.train.epochs = "3"


def test_options_without_a_default_take_a_value_of_their_type_and_none_again():
    config = default()
    config.data.dir = "photos"
    config.model.weights = "weights.pdparams"
    config.data.epoch_size = 10
    config.optimizer.clip_norm = 1
    config.model.strides = (2, 2, 2, 2, 1)
    config.model.weights = None
    with pytest.raises(TypeError):
        config.data.epoch_size = "10"
    parsed = parse(config)
    assert (parsed.model.weights, parsed.data.epoch_size) == (None, 10)
    assert (parsed.optimizer.clip_norm, parsed.model.strides) == (1.0, (2, 2, 2, 2, 1))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.dir": None}, "data.dir=None: data.source=mlcls needs the folder"),
        ({"data.dir": None, "mode": "evaluate"}, "data.dir=None"),
        ({"mode": "predict", "predict.input": None}, "predict.input=None: mode=predict needs"),
        ({"data.source": "packed", "data.dir": None}, "data.dir=None: data.source=packed needs"),
        ({"data.source": "tfds"}, "data.tfds=None: data.source=tfds needs a builder"),
        (
            {"data.source": "digits", "mode": "check_dataset"},
            "data.source=digits: mode=check_dataset checks data.source=mlcls",
        ),
        (
            {"check_dataset.split.enable": True, "check_dataset.split.test_percent": 10},
            "check_dataset.split: train_percent, val_percent and test_percent must add to 100, "
            "not 80 + 20 + 10 = 110",
        ),
        (
            {"check_dataset.split.group": "(a"},
            "check_dataset.split.group='(a': is not a regular expression",
        ),
        (
            {"model.task": "single"},
            "loss.name=asymmetric: model.task=single wants cross_entropy",
        ),
        (
            {"loss.name": "cross_entropy"},
            "loss.name=cross_entropy: model.task=multilabel wants another loss",
        ),
        (
            {"thresholds.objective": "recall"},
            "thresholds.target=None: thresholds.objective=recall wants a number",
        ),
        ({"thresholds.target": 0.9}, "thresholds.target=0.9: thresholds.objective=f1 wants none"),
        (
            {"model.task": "single", "loss.name": "cross_entropy", "mode": "thresholds"},
            "model.task=single: one label per image has no thresholds to choose",
        ),
        (
            {"export.formats": ["onx", "onnx"]},
            "export.formats has onx: must be some of stablehlo, onnx, openvino, triton, litert",
        ),
        ({"train.accumulate": 3}, "train.accumulate=3: must divide train.batch_size=64"),
        ({"parallel.fsdp": -1}, "parallel: {'data': -1, 'fsdp': -1, 'tensor': 1}: one of them"),
        ({"parallel.tensor": 0}, "parallel: {'data': -1, 'fsdp': 1, 'tensor': 0}: one of them"),
        *(
            ({"profile.steps": text}, f"profile.steps={text!r}: must be first:last")
            for text in ("5", "5:4", "0:3", "a:b", ":")
        ),
        ({"model.num_heads": 5}, "model.num_heads=5: must divide model.embed_dim=768"),
        ({"model.image_size": (8, 8, 8)}, "model.image_size=(8, 8, 8): must be one number or"),
        ({"model.image_size": ()}, "model.image_size=(): must be one number or"),
        *(
            ({"optimizer.lr_multipliers": (text,)}, f"optimizer.lr_multipliers has {text!r}")
            for text in ("backbone", "=0.1", "a=", "a=x", "a=-1", "a=nan", "a=inf", "(=1")
        ),
    ],
)
def test_contradictions_are_refused(changes, told):
    (fault,) = faults(changes)
    assert fault.startswith(told)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.dir": None, "mode": "predict"},
        {"data.dir": None, "mode": "export"},
        {"data.dir": None, "data.source": "digits"},
    ],
)
def test_a_data_folder_is_asked_for_only_where_it_is_used(changes):
    assert parse(plain(changes)).data.dir is None


def test_describe_lists_every_option_with_default_range_and_help():
    text = schema.describe()
    for key, f in OPTIONS.items():
        assert f"--config.{key}={f.default}  (" in text
        assert f.metadata["help"] in text
    assert "--config.train.epochs=40  (int, at least 1)" in text
    choices = "one of cosine, linear, step, onecycle, constant"
    assert f"--config.optimizer.schedule=cosine  ({choices})" in text


@pytest.mark.parametrize("which", [0, -1])
def test_yaml_gives_the_same_configuration_back(which):
    changes = {key: legal_values(key)[which] for key in OPTIONS}
    agreeing = {
        "model.num_heads": 1,
        "model.task": "multilabel",
        "data.source": "mlcls",
        "check_dataset.split.enable": False,
        "parallel.fsdp": 1,
        "parallel.tensor": 1,
    }
    config = parse(plain(changes | agreeing))
    text = schema.to_yaml(config)
    assert parse(ConfigDict(yaml.safe_load(text))) == config
    assert text.startswith("mode: ")  # in the order of the schema


def test_a_stored_model_section_is_checked_like_the_rest():
    stored = json.loads(json.dumps(dataclasses.asdict(schema.Model(num_classes=3))))
    assert schema.model_from_dict(stored) == schema.Model(num_classes=3)
    with pytest.raises(ConfigError, match="model.nmae: .* did you mean model.name") as caught:
        schema.model_from_dict({"nmae": "x", "query_num": "80"})
    assert "model.query_num='80': must be int" in caught.value.message


def load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipes(path: Path) -> list[str]:
    """The functions of a configuration file that get_config chooses from."""
    module = load_file(path)
    functions = inspect.getmembers(module, inspect.isfunction)
    here = [name for name, function in functions if function.__module__ == module.__name__]
    return [name for name in here if name != "get_config" and not name.startswith("_")]


def resolve(path: Path, *recipe: str) -> dict[str, Any]:
    config = load_file(path).get_config(*recipe)
    if config.data.source == "mlcls":
        config.data.dir = "photos"
    return schema.to_dict(parse(config))


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_a_config_file_names_its_recipes_and_refuses_others(path):
    assert recipes(path)
    assert resolve(path) in [resolve(path, name) for name in recipes(path)]
    with pytest.raises(ValueError, match=f"{path.name}:nonsense") as caught:
        load_file(path).get_config("nonsense")
    assert all(name in str(caught.value) for name in recipes(path))
    assert path.name in load_file(path).__doc__  # the header gives the command


def test_configs_hands_on_the_recipes_of_the_package():
    names = [path.name for path in sorted((REPOSITORY / "configs").glob("*.py"))]
    assert names == [path.name for path in CONFIG_FILES]
    for path in CONFIG_FILES:
        found = load_file(REPOSITORY / "configs" / path.name).get_config
        assert inspect.getsourcefile(found) == str(path)


def test_defaults_and_shipped_recipes_change_only_on_purpose():
    """The golden has all defaults, and of each recipe what differs from them."""
    defaults = schema.flattened(schema.to_dict(Config()))
    found = {"defaults": defaults}
    for path in CONFIG_FILES:
        for name in recipes(path):
            values = schema.flattened(resolve(path, name))
            assert values.keys() == defaults.keys()
            own = {key: value for key, value in values.items() if value != defaults[key]}
            found[f"{path.stem}:{name}"] = own
    if os.environ.get(RENEW):
        text = yaml.safe_dump(found, default_flow_style=None, sort_keys=False)
        GOLDEN.write_text(text, encoding="utf-8")
    assert yaml.safe_load(GOLDEN.read_text(encoding="utf-8")) == found, (
        "A recipe or a default has changed. If that was meant, renew the golden and commit it: "
        f"{RENEW}=1 python -m pytest tests/config/test_config.py"
    )


def test_a_cut_is_no_larger_than_what_it_is_cut_from():
    crop = {"data.fit": "crop", "model.image_size": [64, 224], "data.resize_short": 63}
    (fault,) = faults(crop)
    assert fault.startswith("data.resize_short=63: must be at least the shorter side of model.")
    assert parse(plain(crop | {"data.resize_short": 64})).data.resize_short == 64
