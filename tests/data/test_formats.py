"""Formats of other tools: what they write is read, what is written is read back the same."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls_jax.config import Convert, Data
from mlcls_jax.data.convert import FORMATS, convert
from mlcls_jax.data.detect import detect
from mlcls_jax.data.save import WRITTEN, save
from tests.helpers.photos import write_image


def read(place: Path, into: Path, form: str | None = None, **options):
    """Detect, convert, and return labels and targets by split and image, as lists have them."""
    found = detect(place, form)
    into.mkdir()
    made = found.convert
    assert made
    given = Convert(**{**made.__dict__, **options})
    done = convert(Data(dir=str(found.root)), given, into)
    return found, done, targets(into)


def targets(root: Path):
    found = {}
    for split in ("train", "val", "test"):
        if (root / f"{split}.txt").is_file():
            lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
            for name, values in (line.split("\t") for line in lines):
                assert (root / name).is_file()
                found[split, (root / name).resolve().name] = [*map(int, values.split(","))]
    return found


# Round trips

LABELS = ["a,b", 'say "no"', "it's", "semi;colon|pipe", "<b>&amp;", "猫 🐈", "0", "[x]", "{y}"]
NAMES = ["a b.png", 'comma,quote".png', "<i>&é?#%20+.png", "train/d.png", "w.x.png", "7.png"]


def dataset(root: Path, labels, rows):
    """An MLClsDataset of rows {(split, name): values}; -1 is usual."""
    (root / "images").mkdir(parents=True)
    for number, (_, name) in enumerate(rows):
        write_image(root / "images" / name, number)
    lines = "".join(f"{i} {name}\n" for i, name in enumerate(labels))
    (root / "label.txt").write_text(lines, encoding="utf-8")
    for split in {split for split, _ in rows}:
        own = [(n, v) for (s, n), v in rows.items() if s == split]
        text = "".join(f"images/{n}\t{','.join(map(str, v))}\n" for n, v in own)
        (root / f"{split}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("to", [to for to in WRITTEN if to != "mlcls"])
@settings(max_examples=6, deadline=None)
@given(
    names=st.lists(st.sampled_from(LABELS), min_size=2, max_size=6, unique=True),
    values=st.lists(st.lists(st.sampled_from([0, 1, -1]), min_size=6, max_size=6), min_size=6),
    copy=st.booleans(),
)
def test_out_and_in_again_gives_the_same_targets(tmp_path_factory, to, names, values, copy):
    tmp_path = tmp_path_factory.mktemp("trip")
    splits = ["train", "train", "train", "val", "val", "test"]
    rows = {
        (split, name): row[: len(names)]
        for split, name, row in zip(splits, NAMES, values, strict=False)
    }
    root = dataset(tmp_path / "photos", names, rows)
    saved = save(detect(root), tmp_path / "out", to, copy=copy)
    if not FORMATS[to].holds_unknown:
        lost = sum(row.count(-1) for row in rows.values())
        assert bool(lost) == any(f"{lost} values of -1" in told for told in saved.told)
        rows = {key: [max(0, value) for value in row] for key, row in rows.items()}
    found, done, again = read(tmp_path / "out", tmp_path / "in")
    assert found.form == to and list(done.labels) == names
    if FORMATS[to].embeds:  # and the images have new names
        assert sorted((s, *row) for (s, _), row in again.items()) == sorted(
            (s, *row) for (s, _), row in rows.items()
        )
    else:
        assert again == {(s, Path(n).name): row for (s, n), row in rows.items()}
    assert not any(done.left_out.values())
    for path in (tmp_path / "photos/images").rglob("*.png"):
        assert path.stat().st_size  # the images are where they were
