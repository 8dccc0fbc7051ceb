"""`mlcls audit`: kept embeddings, the list and the page, and what `--apply` does to lists."""

import csv

import numpy as np
import pytest

from mlcls_jax import create_model
from mlcls_jax.commands import audit as command
from mlcls_jax.config import Data
from mlcls_jax.curation.audit import audit
from mlcls_jax.curation.corrections import apply
from mlcls_jax.curation.features import embed
from mlcls_jax.curation.subject import find_subject
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import ConfigError, DataError
from tests.helpers.bundles import write_small
from tests.helpers.page import Page
from tests.helpers.photos import cells, write_lines, write_photos


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, toy):
    return write_small(tmp_path_factory.mktemp("audit") / "model", "Toy", size=(32, 32))


@pytest.fixture
def data(tmp_path):
    """Twelve images of three kinds, and a last one of the first kind with the label of another."""
    root = write_photos(tmp_path / "photos", train=13, val=2)
    for i in range(13):
        picture = cells(i % 3, (40, 40)).rotate(5 * (i // 3))
        picture.save(root / f"images/train_{i}.png")
    lines = (root / "train.txt").read_text().splitlines()
    write_lines(root / "train.txt", [*lines[:12], "images/train_12.png\t0,1,0"])
    return root


def test_embeddings_are_kept_by_content(bundle, data, monkeypatch):
    model = create_model(model_dir=bundle, batch_size=8)
    source = open_split(Data(dir=str(data)), "train")
    (data / "images/train_3.png").write_bytes(b"no picture")
    (data / "images/train_5.png").write_bytes((data / "images/train_4.png").read_bytes())
    found = embed(model, source)
    assert [*found.broken] == [3] and "train_3.png" in found.broken[3]
    assert found.indices.tolist() == [i for i in range(13) if i != 3]
    assert (found.vectors[3] == found.vectors[4]).all()
    names = [data / f"images/train_{i}.png" for i in found.indices]
    assert np.allclose(found.vectors, model.embed(names), atol=1e-5)
    assert (found.targets == source.targets[found.indices]).all()

    computed, original = [], type(model).embed

    def counted(self, images):
        computed.extend(images)
        return original(self, computed)

    monkeypatch.setattr(type(model), "embed", counted)
    cells(77, (40, 40)).save(data / "images/train_3.png")
    again = embed(model, source)
    assert len(computed) == 1 and not again.broken
    assert (np.delete(again.vectors, 3, 0) == found.vectors).all()


@pytest.mark.filterwarnings("error")
def test_labels_that_nobody_looked_at_are_not_doubted(bundle, data):
    """One label nobody looked at, one that no image has; then all of the first kind."""
    names = [f"images/train_{i}.png" for i in range(13)]
    write_lines(data / "train.txt", [f"{name}\t-1,0,{i % 2}" for i, name in enumerate(names)])
    subject = find_subject(str(bundle), str(data))
    done = audit(subject, at_least=0.0)
    assert {one.label for one in done.suspects if one.doubt > 0} == {1, 2}
    assert done.judged.wrong < 1 and not done.judged.doubt[:, 0].any()
    write_lines(data / "train.txt", [f"{name}\t-1,-1,-1" for name in names])
    with pytest.raises(DataError, match="no label of these images is annotated"):
        audit(subject)


def test_an_audit_becomes_a_page_a_list_and_better_labels(bundle, data, tmp_path):
    output = tmp_path / "audit"
    flags = [str(bundle), "--data", str(data), "--output", str(output)]
    told = command.run([*flags, "--confidence", "0", "--folds", "3"])
    assert "13 images, 3 labels" in told and "--apply confirmed.csv" in told
    with (output / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 39
    doubts = [float(row["confidence"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert "10 most similar images" in rows[0]["reason"]
    page = Page((output / "report.html").read_text())
    ticks = [a for tag, a in page.tags if tag == "input" and "data-image" in a]
    assert len(ticks) == len(page.images) == 39
    assert {(t["data-image"], t["data-label"]) for t in ticks} == {
        (row["image"], row["label"]) for row in rows
    }

    [flipped] = [r for r in rows if (r["image"], r["label"]) == ("images/train_12.png", "dog")]
    flipped["confirmed"] = "yes"
    with (output / "audit.csv").open("w") as file:  # as a person would
        writer = csv.DictWriter(file, [*rows[0]], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    before = (data / "train.txt").read_text()
    told = command.run([*flags[:3], "--apply", str(output / "audit.csv")])
    assert "1 labels changed" in told and "train.txt.bak" in told
    after = (data / "train.txt").read_text()
    assert after == before.replace("train_12.png\t0,1,0", "train_12.png\t0,0,0")
    assert (data / "train.txt.bak").read_text() == before
    assert "had their new value already" in command.run(
        [*flags[:3], "--apply", str(output / "audit.csv")]
    )
    told = command.run(flags)
    assert "audit.csv that was there is now audit.csv.bak" in told


def test_what_does_not_fit_is_told_and_changes_nothing(data, tmp_path):
    file = tmp_path / "c.csv"
    lists = Data(dir=str(data))
    head = "image,label,given,suggested,confirmed"

    def fault(*lines: str) -> str:
        write_lines(file, lines)
        before = (data / "train.txt").read_text()
        with pytest.raises(DataError) as caught:
            apply(lists, file)
        assert (data / "train.txt").read_text() == before
        return caught.value.message

    assert "lacks the column confirmed" in fault("image,label,given,suggested", "a,b,1,0")
    assert "confirmed is 'perhaps'" in fault(head, "images/train_0.png,cat,1,0,perhaps")
    assert "must be 0, 1 or -1" in fault(head, "images/train_0.png,cat,1,2,1")
    told = fault(head, "images/train_1.png,cow,1,0,1", "images/train_1.png,pig,1,0,1")
    assert "c.csv:2: no label is called 'cow'" in told and "c.csv:3" in told
    told = fault(head, "images/train_0.png,cat,0,-1,1", "images/none.png,cat,1,0,1")
    assert "train.txt:1 has 1 there" in told and "c.csv:3: images/none.png is in no list" in told
    write_lines(file, [head, "./images/train_0.png,cat,1,-1,x", "images/train_1.png,dog,1,0,0"])
    done = apply(lists, file)
    assert (done.changed, done.before) == (1, 0)
    assert (data / "train.txt").read_text().startswith("images/train_0.png\t-1,0,0\n")
    write_lines(data / "label.txt", ["0 cat\tparent=pet", "1 dog", "2 bird"])
    assert "label.txt:1: the parent 'pet' is no label" in fault(head)


def test_what_groups_fill_in_can_be_confirmed(data, tmp_path):
    write_lines(data / "label.txt", ["0 cat\tgroup=kind", "1 dog\tgroup=kind", "2 animal"])
    write_lines(data / "train.txt", ["images/train_0.png\t1,-1,0"])
    assert open_split(Data(dir=str(data)), "train").targets.tolist() == [[1, 0, 0]]
    head = "image,label,given,suggested,confirmed"
    write_lines(tmp_path / "c.csv", [head, "images/train_0.png,dog,0,1,1"])
    assert apply(Data(dir=str(data)), tmp_path / "c.csv").changed == 1
    assert (data / "train.txt").read_text() == "images/train_0.png\t1,1,0\n"


def test_a_model_is_needed_and_data_where_it_is_no_run(bundle, tmp_path):
    with pytest.raises(ConfigError, match="no such run, bundle or model") as caught:
        find_subject(str(tmp_path / "none"), None)
    assert "mlcls train" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="is no run"):
        find_subject(str(bundle), None)
    (tmp_path / "csv").mkdir()
    write_lines(tmp_path / "csv/train.csv", ["a.jpg,cat"])
    with pytest.raises(DataError, match="can be corrected"):
        find_subject(str(bundle), str(tmp_path / "csv"))
