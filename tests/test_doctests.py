"""Examples in the docstrings of the public functions are run as they stand."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "guarantees",
        "losses.asymmetric",
        "losses.class_weights",
        "losses.cross_entropy",
        "losses.focal",
        "losses.missing",
        "losses.overlap",
        "losses.ranks",
        "metrics.decisions",
        "metrics.intervals",
        "metrics.per_class",
        "metrics.per_image",
        "metrics.ranking",
        "metrics.single_label",
        "metrics",
        "models",
        "models.registry",
    ],
)
def test_examples_in_docstrings_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(f"mlcls_jax.{name}"))
    assert attempted > 0
    assert failed == 0
