"""Thresholds of the best model, chosen at the end of its training."""

import logging
from dataclasses import replace

from mlcls_jax import parallel
from mlcls_jax.evaluation import score
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.threshold_fit import choose, keep
from mlcls_jax.training.advice import NEARLY_ALL, about_decisions
from mlcls_jax.training.progress import Best
from mlcls_jax.training.run import Run
from mlcls_jax.workdir import BEST_MODEL

log = logging.getLogger(__name__)


def fit_at_end(run: Run, best: Best | None) -> dict[str, dict[str, float]] | None:
    """Choose thresholds as `train.fit_thresholds` says, and put them into the best model.

    Returns:
      Its metrics at the common threshold, at the chosen ones and, of images that they were not
      chosen on, cross-validated; None if nothing was chosen.
    """
    config = run.config
    if best is None or config.model.task == "single":
        return None
    wish = config.train.fit_thresholds
    useless = about_decisions(best.metrics, config.evaluate.training_threshold)
    has_own = config.evaluate.threshold is not None
    if wish == "never" or (wish == "auto" and (has_own or not useless)):
        run.advice.tell(useless)
        return None
    parallel.barrier("best model written")
    folder = run.workdir / BEST_MODEL
    bundle = read_bundle(folder)
    variables = bundle.model.variables
    places = parallel.shardings(variables, run.mesh, run.network.tensor_axes)
    models = {"best": parallel.put(variables, places)}
    logits, targets = score(run.forward, models, run.validation_batches(), run.mesh)
    if not parallel.is_lead():
        return None
    if useless:
        log.info("A common threshold does not work for the best model: each label gets its own.")
    groups = bundle.model.network.groups
    chosen = choose(logits["best"], targets, config.thresholds, groups)
    if chosen.reported > NEARLY_ALL:
        run.advice.tell(
            "Even the best thresholds would report nearly all labels on every image: the scores say"
            " little. Each label is now reported as often as it occurs. Train longer, from"
            " published weights, or on more images."
        )
        by_prevalence = replace(config.thresholds, objective="prevalence", target=None)
        chosen = choose(logits["best"], targets, by_prevalence, groups)
    return keep(folder, bundle, logits["best"], targets, chosen).metrics
