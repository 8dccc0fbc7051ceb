"""The JSON Schema of the configuration says the same as the check of its values."""

from typing import Any

import jsonschema

from mlcls_jax import config as schema

OF_ALL = schema.json_schema()
VALIDATOR = jsonschema.Draft202012Validator(OF_ALL)
VALUES = (
    *(None, True, "", "nonsense", "train", "cosine", "3", -1, 0, 0.5, 1, 64, 300, 2**40, 1.5e9),
    *([], [8], [0], [64, 32], [64, 32, 16], ["a"], [None], [True], {}, {"a": 1}),
)


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def test_it_is_a_json_schema_that_the_defaults_obey():
    jsonschema.Draft202012Validator.check_schema(OF_ALL)
    VALIDATOR.validate(schema.to_dict(schema.Config()))


def test_it_takes_and_refuses_the_values_that_the_check_does():
    for key, f in schema.options().items():
        ends = [end for end in (f.metadata["min"], f.metadata["max"]) if end is not None]
        around = [end + step for end in ends for step in (-1, 0, 1)]
        for value in (*VALUES, *around, *schema.choices_of(f)):
            if isinstance(value, float) and value.is_integer():
                continue  # 1.0 is an integer in JSON Schema
            _, faults = schema.check(nested(key, value))
            assert VALIDATOR.is_valid(nested(key, value)) == (not faults), (key, value, faults)


def test_unknown_keys_are_refused_in_every_section():
    for key in ("sed", "train.epoch", "check_dataset.split.stratified"):
        assert not VALIDATOR.is_valid(nested(key, 1))
