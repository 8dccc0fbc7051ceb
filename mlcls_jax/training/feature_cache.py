"""A run on feature maps: the frozen backbone sees each image once, before the first step."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlcls_jax import __version__, parallel
from mlcls_jax.data import features
from mlcls_jax.data.features import FeatureReader, View
from mlcls_jax.data.pipeline import EvalReader, Reader, eval_batches
from mlcls_jax.errors import ConfigError
from mlcls_jax.evaluation import Forward, make_forward
from mlcls_jax.lookahead import delayed
from mlcls_jax.models.network import Variables, flatten
from mlcls_jax.training.run import Run, first_variables
from mlcls_jax.workdir import FEATURES

log = logging.getLogger(__name__)

TOLD_EVERY = 15.0  # seconds


def with_features(run: Run) -> Run:
    """Return the run with readers of feature maps, computed now or by an earlier start.

    Raises:
      ConfigError: there are several processes.
      WorkdirError: the disk has no room for the maps.
    """
    config = run.config.data
    if not config.feature_views:
        return run
    if jax.process_count() > 1:
        raise ConfigError(
            f"data.feature_views={config.feature_views}: is for a single process",
            "Leave it out: several processes compute features in every step.",
        )
    variables = first_variables(run.network, run.weights, run.config.seed, run.mesh)
    made_of = {
        "version": __version__,
        "model": asdict(run.network.config) | {"weights": None},
        "backbone": _digest(variables),
        **{key: run.facts[key] for key in ("labels", "preprocessing")},
    }
    training, validation = run.readers
    assert isinstance(training, Reader) and isinstance(validation, Reader)
    seed = run.config.seed
    plain, varied = replace(config, augment=()), config
    views = [
        View(training.source, training.for_training(varied if v else plain), (seed, v))
        for v in range(config.feature_views)
    ]
    keep = partial(_keep, run, variables)
    of_training = {"views": len(views), "seed": seed, "data": run.facts["train"]}
    of_validation = {"data": run.facts["validation"]}
    if config.source == "mlcls":  # other sources know their content
        of_training["files"] = features.stamps(training.source)
        of_validation["files"] = features.stamps(validation.source)
    return replace(
        run,
        readers=(
            keep("train", training, views, made_of | of_training),
            keep("validation", validation, [validation], made_of | of_validation),
        ),
    )


def _keep(
    run: Run,
    variables: Variables,
    split: str,
    reader: Reader,
    views: Sequence[EvalReader],
    made_of: dict[str, Any],
) -> FeatureReader:
    """Return a reader of the maps of these views, written now if they are not there."""
    folder = run.workdir / FEATURES / split
    forward = make_forward(replace(run.network, reads_features=False), run.mesh, of="features")
    image = jax.ShapeDtypeStruct((1, *reader.frame.size, 3), jnp.uint8)
    one = jax.eval_shape(forward, variables, image)
    if features.is_made_of(folder, made_of):
        log.info("Reusing the features in %s.", folder)
    else:
        shape = len(views), len(reader.source), *one.shape[1:]
        computed = _computed(run, variables, forward, views)
        features.write(
            folder, reader, computed, shape=shape, dtype=np.dtype(one.dtype), made_of=made_of
        )
    return FeatureReader.open(folder, reader, np.dtype(one.dtype))


def _computed(
    run: Run, variables: Variables, forward: Forward, views: Sequence[EvalReader]
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield the maps and targets of a batch after the other; see `features.write`."""
    size, began, told = run.config.evaluate.batch_size, time.perf_counter(), 0.0
    for view, reader in enumerate(views):
        count, first = len(reader.source), 0
        batches = eval_batches(reader, run.config.data, batch_size=size)
        begun = (
            (batch["target"], forward(variables, batch["image"]))
            for batch in parallel.put_ahead(batches, run.mesh)
        )
        for target, maps in delayed(begun, 1):
            real = min(size, count - first)  # the last batch is padded
            yield view, first, parallel.fetch(maps)[:real], parallel.fetch(target)[:real]
            first += real
            seconds = time.perf_counter() - began
            if seconds - told > TOLD_EVERY or (view, first) == (len(views) - 1, count):
                told, done = seconds, view * count + first
                log.info(
                    "Features: %s of %s, at %.0f images/s.",
                    f"{done:,}", f"{len(views) * count:,}", done / seconds,
                )  # fmt: skip


def _digest(variables: Variables) -> str:
    """Return a checksum of the backbone's numbers."""
    total = hashlib.sha256()
    for path, array in sorted(flatten(variables).items()):
        if path.startswith("backbone/"):
            total.update(path.encode())
            total.update(parallel.fetch(array).tobytes())
    return total.hexdigest()
