"""Configurations in YAML: the sections, and `base: lcnet:coco` for all that is not in them.

What a run writes as its `config.yaml` is one, with every value.
"""

from ml_collections import ConfigDict

from mlcls_jax import config as schema
from mlcls_jax import recipes
from mlcls_jax.errors import ConfigError, raise_faults
from mlcls_jax.files import regular
from mlcls_jax.parsing import parse_settings

BASE = "base"  # the recipe under the values of the file


def get_config(path: str) -> ConfigDict:
    """Return the values of a file over those of its base, or over the defaults.

    ml_collections calls it for `--config=…/yaml_config.py:run.yaml`.

    Raises:
      ConfigError: it cannot be read; or tells every unknown key and wrong value with its line.
    """
    try:
        content = regular(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    given, lines = parse_settings(content, path, ConfigError)
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: is not a configuration", "It has sections such as `train:`.")
    base, faults = given.pop(BASE, None), []
    try:
        values = schema.default() if base is None else recipes.load(str(base))
    except ConfigError as error:
        values, faults = schema.default(), [schema.Fault(BASE, f"{BASE}: {error.message}")]
    found, wrong = schema.check(given)
    raise_faults(ConfigError, [f"{path}:{lines[f.key]}: {f.text}" for f in (*faults, *wrong)])
    values.update_from_flattened_dict(found)
    return values
