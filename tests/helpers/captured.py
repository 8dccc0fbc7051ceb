"""Outputs of a network and of the modules of its backbone, by one compiled forward pass."""

import functools
from operator import getitem

import jax
import numpy as np
from flax import nnx


def outputs_and_maps(model, images, paths):
    """Logits and feature map of `model`, and the outputs of its backbone's modules at `paths`."""
    network = model.network.on(jax.devices())

    @jax.jit
    def forward(variables, images):
        module = network.module(variables)
        features, outputs = nnx.capture(
            module.backbone, nnx.Intermediate, method_outputs=nnx.Intermediate
        )(images)
        outputs = nnx.to_pure_dict(outputs)
        called = {path: functools.reduce(getitem, path.split("/"), outputs) for path in paths}
        maps = {path: outputs["__call__"][-1] for path, outputs in called.items()}
        return module.head(features), features, maps

    return jax.tree.map(np.asarray, forward(model.variables, images))
