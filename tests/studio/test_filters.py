"""Filters and orders of 20,000 images, against plain loops."""

import numpy as np
import pytest

from mlcls_jax.config import Data
from mlcls_jax.errors import InputError
from mlcls_jax.studio.changes import ChangeLog
from mlcls_jax.studio.dataset import read_dataset
from mlcls_jax.studio.embeddings import Embeddings, unit
from mlcls_jax.studio.facts import Facts
from mlcls_jax.studio.filters import Query, find, read_query
from mlcls_jax.studio.queues import read_queue
from mlcls_jax.studio.scores import Scores
from mlcls_jax.studio.session import Cell, Session

COUNT = 20_000


@pytest.fixture(scope="module")
def all_(tmp_path_factory):
    """Session, facts, two models' scores, queue; lists alone: no image is opened."""
    folder = tmp_path_factory.mktemp("filters")
    (folder / "images").mkdir()
    (folder / "label.txt").write_text("0 a\n1 b\n2 c\n")
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, (COUNT, 3))
    lines = [
        f"images/{'Xy'[i % 2]}{i}.jpg\t{','.join(map(str, v))}\n" for i, v in enumerate(values)
    ]
    (folder / "train.txt").write_text("".join(lines[:15_000]))
    (folder / "val.txt").write_text("".join(lines[15_000:]))
    (folder / "queue.csv").write_text(
        "image,label,why\nimages/X40.jpg,a,odd\nimages/X2.jpg,b,rare\nimages/X40.jpg,c,\nno.jpg,a,\n"
    )
    session = Session(read_dataset(Data(dir=str(folder))), ChangeLog(folder / "log"))
    assert (session.targets == values).all()
    facts = Facts.of(session.dataset)
    models = [Scores(session.dataset, "none"), Scores(session.dataset, "other")]
    scores, other = models
    facts.pixels[:] = rng.integers(0, 50, (COUNT, 2))
    facts.faults = {3: [("damaged", "…")], 9: [("near_copy", "…")], 700: [("near_copy", "…")]}
    facts.twins = {9: {700}, 700: {9}}
    scores.values[:] = rng.random((COUNT, 3))
    scores.values[5] = np.nan
    scores.thresholds[:] = (0.5, 0.25, 0.75)
    other.values[:] = rng.random((COUNT, 3))
    other.values[:, 2] = np.nan  # a label that it does not know
    session.change("w", [Cell(11, 0, int(values[11, 0]), 1 - abs(int(values[11, 0])))])
    return session, facts, models, read_queue(folder / "queue.csv", session.dataset)


@pytest.fixture
def found(all_):
    session, facts, models, queue = all_
    return lambda near=None, **asked: find(
        Query(**asked), session, facts, models, queue.rows, near
    ).tolist()


def test_filters_let_through_what_plain_loops_do(all_, found):
    session, facts, (scores, _), queue = all_
    t, s, limits, rows = session.targets, scores.values, scores.thresholds, range(COUNT)
    assert found() == list(rows)
    assert found(list="val.txt") == list(rows[15_000:])
    assert found(label=1, value=-1) == [i for i in rows if t[i, 1] == -1]
    assert found(value=1) == [i for i in rows if 1 in t[i]]
    assert found(label=0, low=0.2, high=0.3) == [i for i in rows if 0.2 <= s[i, 0] <= 0.3]
    assert found(low=0.99) == [i for i in rows if i != 5 and s[i].max() >= 0.99]
    differ = (s > limits) != (t == 1)
    differ[(t < 0) | np.isnan(s)] = False
    assert found(disagree=True) == np.flatnonzero(differ.any(axis=1)).tolist()
    assert found(disagree=True, label=2) == np.flatnonzero(differ[:, 2]).tolist()
    assert found(changed=True) == [11]
    assert found(fault="damaged") == [3] and found(fault="any") == [3, 9, 700]
    assert found(twins=True) == [9, 700]
    assert found(below=4) == [i for i in rows if 0 < facts.pixels[i].min() < 4]
    assert found(name="x1000") == [1000, *range(10_000, 10_010, 2)]
    assert found(queued=True, sort="queue") == [40, 2] == queue.rows.tolist()
    assert queue.told[40] == [{"label": "a", "why": "odd"}, {"label": "c", "why": ""}]
    assert queue.unknown == 1


def test_orders_are_those_of_their_keys(all_, found):
    session, facts, (scores, _), _ = all_
    t, s = session.targets, scores.values
    names = session.dataset.images
    assert found(sort="name") == sorted(range(COUNT), key=lambda i: names[i].lower())
    assert found(falling=True) == list(reversed(range(COUNT)))
    assert found(sort="labels") == sorted(range(COUNT), key=lambda i: (t[i] == 1).sum())
    assert found(sort="changed")[0] == 11
    assert found(sort="size") == sorted(range(COUNT), key=lambda i: facts.pixels[i].prod())
    by_score = found(sort="score", label=1)
    assert by_score[-1] == 5 and (np.diff(s[by_score[:-1], 1]) <= 0).all()
    assert abs(s[found(sort="uncertain", label=0)[0], 0] - 0.5) < 1e-3
    # Surest of what the label denies, or surest against what it says.
    first = found(sort="disagree", label=2)[0]
    assert (s[first, 2] > 0.99 and t[first, 2] == 0) or (s[first, 2] < 0.01 and t[first, 2] == 1)
    vectors = unit(np.random.default_rng(1).normal(size=(COUNT, 4)).astype(np.float32))
    embeddings = Embeddings(COUNT, lambda found: found)
    assert np.isnan(embeddings.nearness(vectors[7])).all()
    embeddings.put(np.arange(9, COUNT), vectors[9:])
    near = embeddings.nearness(embeddings.of(3 * vectors[7]))
    np.testing.assert_allclose(near[9:], vectors[9:] @ vectors[7], atol=2e-3)
    # What is not known yet comes last, in the order of the lists.
    order = sorted(range(9, COUNT), key=lambda i: -near[i])
    assert found(near) == [*order, *range(9)] == found(near, falling=True)[::-1]
    assert found(near, list="val.txt") == [i for i in order if i >= 15_000]


def test_models_are_held_against_each_other_and_each_against_the_labels(all_, found):
    session, _, (one, other), _ = all_
    t, a, b = session.targets[:, :2], one.values[:, :2], other.values[:, :2]
    said = [values > model.thresholds[:2] for model, values in ((one, a), (other, b))]
    known = ~np.isnan(a)
    apart = (said[0] != said[1]) & known
    assert found(differ=True) == np.flatnonzero(apart.any(axis=1)).tolist()
    assert found(differ=True, label=1) == np.flatnonzero(apart[:, 1]).tolist()
    assert found(differ=True, label=2) == []  # only one of them knows it
    wrong = (said[1] != (t == 1)) & (t >= 0)
    assert found(disagree=True, model=1) == np.flatnonzero(wrong.any(axis=1)).tolist()
    assert found(label=0, low=0.2, high=0.3, model=1) == [
        i for i in range(COUNT) if 0.2 <= b[i, 0] <= 0.3
    ]
    # First where one is sure of it and the other of the contrary, last where all are sure alike.
    order = found(sort="differ", label=0)
    distance = abs(a - b)[order, 0]
    assert distance[0] > 0.97 and 5 in order[-3:] and distance[-5] < 0.1
    count = apart[:, 0].sum()
    assert apart[order[:count], 0].all() and not apart[order[count:], 0].any()


def test_a_query_that_makes_no_sense_is_told(all_):
    session, facts, models, queue = all_
    asked = read_query({"label": "2", "value": "-1", "low": "0.5", "disagree": "1", "below": ""})
    assert asked == Query(label=2, value=-1, low=0.5, disagree=True)
    for given in ({"labl": "2"}, {"label": "x"}, {"sort": "colour"}, {"low": "high"}):
        with pytest.raises(InputError, match=next(iter(given))):
            read_query(given)
    for query in (Query(label=3), Query(list="label.txt"), Query(model=2), Query(model=-1)):
        with pytest.raises(InputError, match="must be|there are 2"):
            find(query, session, facts, models, queue.rows)
    with pytest.raises(InputError, match="no scores"):
        find(Query(sort="score"), session, facts, (), queue.rows)
    for query in (Query(differ=True), Query(sort="differ")):
        with pytest.raises(InputError, match="no models to compare"):
            find(query, session, facts, models[:1], queue.rows)
