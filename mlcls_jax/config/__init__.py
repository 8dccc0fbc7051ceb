"""The configuration: every option, its type, default, range and meaning, in one place.

Frozen dataclasses are the truth (`*_sections`, `schema`). Config files fill the same tree as a
`ConfigDict`, and `parse` checks it and turns it into a `Config` (`engine`). The rest of the code
sees only `Config`.
"""

from mlcls_jax.config.arguments import add_arguments, from_arguments, json_value
from mlcls_jax.config.engine import (
    Fault,
    at,
    changed,
    check,
    default,
    describe,
    flattened,
    kind_of,
    matching,
    model_from_dict,
    nearest,
    options,
    parse,
    section_of,
    to_dict,
    to_yaml,
    unknown_key,
    value_of,
)
from mlcls_jax.config.field import REQUIRED, choices_of, option
from mlcls_jax.config.json_schema import json_schema
from mlcls_jax.config.mode_sections import (
    DEFAULT_THRESHOLD,
    EXPORT_FORMATS,
    Backend,
    CheckDataset,
    Convert,
    Dialect,
    Evaluate,
    Export,
    Precision,
    Predict,
    SourceType,
    Split,
    Thresholds,
)
from mlcls_jax.config.schema import Config
from mlcls_jax.config.training_sections import (
    TRACKERS,
    Data,
    Distill,
    Log,
    Loss,
    Model,
    Optimizer,
    Parallel,
    Profile,
    Train,
)
