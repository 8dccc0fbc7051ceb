"""Outputs of a backbone and of the modules inside, by one forward pass."""

import jax
import numpy as np
from flax import nnx


def features_and_maps(model, images, paths):
    """What the backbone of `model` returns, and the outputs of its modules at `paths`."""

    @jax.jit
    def forward(variables, images):
        backbone = model.network.module(variables).backbone
        features, outputs = nnx.capture(
            backbone, nnx.Intermediate, method_outputs=nnx.Intermediate
        )(images)
        outputs = nnx.to_pure_dict(outputs)
        return features, {path: outputs[path]["__call__"][-1] for path in paths}

    return jax.tree.map(np.asarray, forward(model.variables, images))
