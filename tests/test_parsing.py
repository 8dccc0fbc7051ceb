"""Hostile YAML ends in one error that names the file, at once; JSON and XML: test_convert."""

import pytest
import yaml

from mlcls_jax.errors import InputError
from mlcls_jax.inference.api import pipeline_config, pipeline_settings
from mlcls_jax.parsing import MAX_YAML, parse_json, parse_yaml


def bomb(levels: int) -> str:
    """Ten aliases of ten aliases of …"""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"pipeline_name: *a{levels - 1}"])


HOSTILE = {
    "flow lists": ("[" * 100_000, "is nested too deeply"),
    "flow maps": ("{a: " * 50_000, "is nested too deeply"),
    "block lists": ("- " * 100_000, "is nested too deeply"),
    "aliases": (bomb(9), ":2: has an alias"),
    "an alias of itself": ("a: &a [*a]", ":1: has an alias"),
    "a number of 5,000 digits": ("a: " + "9" * 5000, "has a value that cannot be read"),
    "no date": ("a: 2024-99-99", "has a value that cannot be read"),
    "an empty integer": ("a: !!int ''", "has a value that cannot be read"),
    "no truth": ("a: !!bool x", "has a value that cannot be read"),
    "an object": ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
    "a list as key": ("? [1]\n: 2", "is not YAML"),
    "control characters": ("a: \0", "is not YAML"),
    "length": ("a: " + "x" * MAX_YAML, "characters, more than"),
}


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_pipeline_file_is_an_error_that_names_it(tmp_path, text, expected):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        pipeline_settings(path)
    assert caught.value.message.startswith(f"{path}:") and expected in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_name", 5), ("model_dir", ["a"]), ("batch_size", True), ("batch_size", "4")],
)
def test_a_value_of_the_wrong_type_in_a_pipeline_file_is_told(tmp_path, key, value):
    settings = yaml.safe_load(pipeline_config())
    next(iter(settings["SubModules"].values()))[key] = value
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=f"own.yaml: {key} is "):
        pipeline_settings(path)


def test_what_is_written_plainly_is_read():
    assert parse_yaml(pipeline_config().encode(), "x") == yaml.safe_load(pipeline_config())
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\xc3\xbc"]}', "x") == {
        "a": [1, 2.5, None, "ü"]
    }
