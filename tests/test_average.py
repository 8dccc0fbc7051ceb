"""`mlcls average`: which runs may be averaged, their mean, and the run that it makes."""

import dataclasses
import json

import numpy as np
import pytest

import mlcls_jax
from mlcls_jax.commands import average as command
from mlcls_jax.commands.compared import open_compared
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import ConfigError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle, write_bundle
from mlcls_jax.models.network import Network, flatten
from mlcls_jax.modes.evaluate import Outputs
from mlcls_jax.runs import load
from mlcls_jax.tuning import soup
from mlcls_jax.tuning.soup import average, mean_of
from mlcls_jax.workdir import check_owner, claim
from tests.helpers.small_run import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy):
    """Three runs that began with the same weights, the third of much worse ones, and a fourth."""
    folder = tmp_path_factory.mktemp("runs")
    base = small()
    labels = open_split(base.data, "validation").labels
    for number, noise in enumerate((0.01, 0.02, 3.0, 0.01)):
        config = dataclasses.replace(base, seed=number // 3)
        network = Network.of(dataclasses.replace(config.model, num_classes=len(labels)))
        rng = np.random.default_rng(number)

        def near(_, array, rng=rng, noise=noise):
            return (array * (1 + noise * rng.random(array.shape))).astype(array.dtype)

        place = folder / f"run{number}"
        place.mkdir()
        claim(place, config)
        write_bundle(
            place / "best_model", network.config, network.init(config.seed, put=near),
            labels=labels, threshold=0.5, facts={"weights": "raw"},
        )  # fmt: skip
    return folder


def test_the_mean_of_weights_is_taken_number_by_number():
    one, two = ({"a": {"b": np.float32([1, 2])}}, {"a": {"b": np.float32([3, 5])}})
    mean = mean_of([one, two])["a"]["b"]
    assert mean.dtype == np.float32 and mean.tolist() == [2.0, 3.5]


@pytest.mark.slow
def test_runs_of_one_start_become_a_run_that_predicts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = command.run(["run0", "run1"])
    place = folder / "runs/average-1"
    assert "weights of 2" in told and "scores of 2" in told and "predict runs/average-1" in told
    arrays = [
        flatten(read_bundle(f).model.variables) for f in (folder / "run0", folder / "run1", place)
    ]
    for path, mean in arrays[2].items():
        assert np.allclose(mean, (arrays[0][path] + arrays[1][path]) / 2, rtol=1e-6)
    result = json.loads((place / "average_result.json").read_text())
    assert (
        result["members"] == ["run0", "run1"]
        and result["weights"] == load(place).metrics["MultiLabelMAP"]
    )
    assert open_compared(str(place)).shown["MultiLabelMAP"] == result["weights"]
    [answer] = mlcls_jax.create_model(model_dir=place).predict(np.zeros((40, 40, 3), np.uint8))
    assert "label_names" in answer


@pytest.mark.slow
def test_greedy_leaves_out_what_makes_it_worse(folder, tmp_path):
    runs = [load(folder / f"run{number}") for number in (0, 1, 2)]
    done = average(runs, tmp_path, is_greedy=True)
    best = max(value for value in done.runs.values() if value is not None)
    assert done.weights is not None and done.weights >= best
    facts = read_bundle(tmp_path / "best_model").facts
    assert facts["weights"] == f"average of {', '.join(done.members)}"


@pytest.mark.slow
def test_runs_of_other_starts_are_measured_by_their_scores(folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = command.run(["run0", "run3", "--output", "together"])
    assert "seed: 0, 1" in told and "scores of 2" in told
    assert not (folder / "together/best_model").exists()


@pytest.mark.parametrize("others", [[], ["./run0/"], ["link"], ["run1", "link"]])
def test_a_run_alone_or_twice_is_refused_and_leaves_nothing(folder, monkeypatch, others):
    monkeypatch.chdir(folder)
    if not (folder / "link").exists():
        (folder / "link").symlink_to("run0", target_is_directory=True)
    with pytest.raises(ConfigError, match="two different runs"):
        command.run(["run0", *others, "--output", "alone"])
    assert not (folder / "alone").exists()


def test_a_run_alone_is_ranked_by_logits_whose_scores_are_equal(folder):
    bundle = read_bundle(folder / "run0" / "best_model")
    logits = np.repeat(np.float32([[30], [40], [50]]), 2, axis=1)  # each score is 1 in float32
    targets = np.float32([[0, 0], [1, 0], [1, 1]])
    some = [Outputs(folder, bundle, None, None, logits, targets, [])]
    assert soup._metric(small(), some) == 1
    with pytest.raises(WorkdirError, match="others could not"):
        soup._metric(small(), [*some, some[0]._replace(targets=targets[::-1])])


def test_training_does_not_replace_an_average(tmp_path):
    (tmp_path / "average_result.json").write_text("{}")
    with pytest.raises(WorkdirError, match="which training would replace"):
        check_owner(tmp_path, small())
