"""A configuration file for ml_collections that stands for a run's own `config.yaml`."""

from ml_collections import ConfigDict

from mlcls_jax.config import from_yaml


def get_config(path: str) -> ConfigDict:
    """Load a YAML file over the defaults; `--config=recorded.py:runs/mine/config.yaml`.

    Raises:
      ConfigError: like `from_yaml`.
    """
    return from_yaml(path)
