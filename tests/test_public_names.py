"""The public names, listed once more: none joins or leaves them by accident."""

import importlib
import re
from pathlib import Path

import pytest

PUBLIC = {
    "mlcls_jax": "create_model create_pipeline evaluate list_models load train",
    "mlcls_jax.losses": "CLASS_WEIGHTS LOSSES REDUCTIONS UNKNOWN angular_loss asymmetric_loss"
    " count_unknown cross_entropy distribution_balanced_loss entropy_loss exclusive_loss focal_loss"
    " hill_loss"
    " multilabel_loss overlap_loss two_way_loss weights_of_classes",
    "mlcls_jax.metrics": "MAIN_METRIC SHOWN_METRICS as_text average_precision"
    " best_mean_accuracy class_recall example_metrics"
    " for_json further_metrics hamming_distance label_accuracy matthews_correlation"
    " mean_average_precision metrics_of multilabel_metrics precision_recall_f1"
    " ranking_metrics roc_auc sample_accuracy single_label_metrics top_k_accuracy"
    " top_k_f1",
    "mlcls_jax.models": "Model Network create from_config list_models with_labels",
    "mlcls_jax.models.weights": "LoadReport load save to_foreign",
}

API = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_offers_just_its_public_names(name):
    module = importlib.import_module(name)
    assert module.__all__ == PUBLIC[name].split()
    assert all(hasattr(module, public) for public in module.__all__)


def test_the_page_of_the_api_documents_every_public_name_and_no_other():
    page = API.read_text(encoding="utf-8")
    paths = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    of_modules = {name for path in paths for name in PUBLIC.get(path, "").split()}
    single = {path.split(".")[-1] for path in paths if path not in PUBLIC}
    told = set(re.findall(r"`([A-Z_]+)`", page))  # constants, in the text
    public = {name for names in PUBLIC.values() for name in names.split()}
    assert public <= of_modules | single | told
    assert single <= public
