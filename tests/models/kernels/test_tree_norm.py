"""Both forms of the norm equal optax's."""

import numpy as np
import optax

from mlcls_jax.models.kernels.tree_norm import joined_norm, tree_norm


def test_the_norm_of_joined_arrays_is_the_norm_of_all():
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 4, 5), "bias": (5,), "scale": ()}
    grads = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    grads = {"a": grads, "b": {"kernel": 1e3 * grads["kernel"]}}
    np.testing.assert_array_equal(tree_norm(grads), optax.tree.norm(grads))
    np.testing.assert_allclose(joined_norm(grads), optax.tree.norm(grads), rtol=1e-6)
    grads["a"]["bias"][2] = np.nan
    assert not np.isfinite(joined_norm(grads))
