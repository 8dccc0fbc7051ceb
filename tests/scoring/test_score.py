"""Batch scoring: each image once, as `predict` has it, whatever the input and interruptions."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlcls_jax.commands.score import run
from mlcls_jax.data.image_files import Files
from mlcls_jax.data.pack import pack
from mlcls_jax.errors import DataError, InputError, UserError, WorkdirError
from mlcls_jax.inference.bundle import read_bundle, update_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.lock import locked
from mlcls_jax.scoring import run_job
from mlcls_jax.scoring.in_process import local_engine, open_job_input, open_predictor, score_here
from mlcls_jax.scoring.job import Request
from mlcls_jax.scoring.run_job import score
from tests.helpers import toy_backbone
from tests.helpers.bundles import LABELS, write_small
from tests.helpers.photos import cells
from tests.helpers.web import serve

COUNT = 23


@pytest.fixture(scope="module", autouse=True)
def one_predictor():
    """Jobs of one model and the same options share a predictor, which is traced once."""
    kept = {}

    def open_once(request, bundle):
        names = ("device", "backend", "batch_size", "precision", "threads", "threshold")
        files = sorted(Path(request.model_dir).iterdir())
        key = repr([[getattr(request, name) for name in names], files])
        key += repr([file.stat().st_mtime_ns for file in files])
        if key not in kept:
            kept[key] = open_predictor(request, bundle)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_job, "open_predictor", open_once)
        yield


@pytest.fixture(scope="module")
def bundle(toy, tmp_path_factory):
    return write_small(tmp_path_factory.mktemp("bundle") / "model", "Toy_ML")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images and subfolders, with one broken and one empty file."""
    root = tmp_path_factory.mktemp("photos")
    write_pictures(root, [f"{'ab/c'[: i % 4 + 1].strip('/')}/{i:02d}.png" for i in range(COUNT)])
    (root / "b.jpg").write_bytes(b"no image")
    (root / "z.png").touch()
    (root / ".hidden.png").touch()
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def truth(bundle, photos):
    """Path → what `predict` says of it."""
    predictor = Predictor(read_bundle(bundle), batch_size=4)
    return {r["input_path"]: r for r in predictor.predict(photos, on_error="yield")}


def write_pictures(root, names):
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cells(seed, (32, 48 + seed % 2)).save(root / name)


def request(bundle, source, output, **options):
    plain = {"batch_size": 4, "rows_per_file": 8, "threads": 2}
    return Request(str(bundle), str(source), str(output), **(plain | options))


def read(output):
    """The rows of all part files, and those of the files of errors."""
    errors = [pq.read_table(path).to_pylist() for path in sorted(output.glob("_errors-*"))]
    return pq.read_table(output).to_pylist(), [row for rows in errors for row in rows]


def contents(output):
    """File → its bytes, of all Parquet files."""
    return {path.name: path.read_bytes() for path in output.glob("*.parquet")}


def as_rows(results):
    """What the part files should hold of the results of `predict`."""
    return [
        {
            "path": r["input_path"],
            "page_index": r["page_index"],
            "class_ids": r["class_ids"],
            "scores": pytest.approx(r["scores"], abs=1.1e-5),  # rounded to five digits
            "label_names": r["label_names"],
        }
        for r in results
        if "error" not in r
    ]


def test_a_folder_is_scored_as_predict_does(bundle, photos, truth, tmp_path):
    done = score(request(bundle, photos, tmp_path))
    rows, errors = read(tmp_path)
    assert len(rows) == COUNT and len({tuple(r["class_ids"]) for r in rows}) > 3
    assert rows == as_rows(truth.values())
    assert errors == [
        {"path": path, "error": r["error"]} for path, r in truth.items() if "error" in r
    ]
    assert len(errors) == 2
    assert (done.images, done.rows, done.broken, done.scored) == (25, 23, 2, 25)
    success = json.loads((tmp_path / "_SUCCESS.json").read_text())
    assert {key: success[key] for key in ("images", "rows", "broken")} == {
        "images": 25,
        "rows": 23,
        "broken": 2,
    }
    parts = sorted(tmp_path.glob("part-*"))
    assert [pq.read_metadata(path).num_rows for path in parts] == [8, 8, 7, 0]
    schema = pq.read_schema(parts[0])
    assert {f.name: str(f.type) for f in schema} == {
        "path": "string",
        "page_index": "int32",
        "class_ids": "list<element: int32>",
        "scores": "list<element: float>",
        "label_names": "list<element: string>",
    }
    facts = json.loads(schema.metadata[b"mlcls_jax"])
    assert (facts["labels"], facts["threshold"]) == (list(LABELS), 0.5)
    assert len(facts["weights_sha256"]) == 64


def test_all_scores_are_those_of_every_label(bundle, photos, truth, tmp_path):
    score(request(bundle, photos, tmp_path, all_scores=True))
    table = pq.read_table(tmp_path)
    assert str(table.schema.field("scores").type) == "fixed_size_list<element: float>[5]"
    assert table.column_names == ["path", "page_index", "scores"]
    wanted = np.stack([r.all_scores for r in truth.values() if "error" not in r])
    np.testing.assert_allclose(table["scores"].to_pylist(), wanted, atol=1e-6)


def test_embeddings_stand_beside_the_labels_if_asked_for(bundle, photos, truth, tmp_path):
    score(request(bundle, photos, tmp_path, embeddings=True))
    table = pq.read_table(tmp_path)
    assert table.column_names[-2:] == ["label_names", "embedding"]
    predictor = Predictor(read_bundle(bundle), batch_size=4)
    wanted = predictor.embed([r["input_path"] for r in truth.values() if "error" not in r])
    found = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * wanted.max())
    with pytest.raises(WorkdirError, match="embeddings: true when the job began"):
        score(request(bundle, photos, tmp_path))


@pytest.mark.parametrize(
    "threshold", [0.0, 0.9, [0.1, 0.2, 0.9, 0.4, 0.5], {"default": 0.9, "cat": 0.01}]
)
def test_thresholds_are_those_of_predict(bundle, photos, tmp_path, threshold):
    score(request(bundle, photos, tmp_path, threshold=threshold))
    predictor = Predictor(read_bundle(bundle), batch_size=4)
    found = predictor.predict(photos, threshold=threshold, on_error="yield")
    assert read(tmp_path)[0] == as_rows(found)


def test_shards_of_a_job_are_the_whole(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path / "whole"))
    for shard in (2, 0, 1):
        assert not (tmp_path / "shards/_SUCCESS.json").exists()
        score(request(bundle, photos, tmp_path / "shards", shard=shard, shards=3))
        assert (tmp_path / f"shards/_SUCCESS-{shard}-of-3.json").exists()
    assert read(tmp_path / "shards") == read(tmp_path / "whole")
    total = json.loads((tmp_path / "shards/_SUCCESS.json").read_text())
    assert total == {"shards": 3, "images": 25, "rows": 23, "broken": 2}
    numbers = {path.name[11:] for path in (tmp_path / "shards").glob("part-*")}
    assert numbers == {path.name[11:] for path in (tmp_path / "whole").glob("part-*")}


@pytest.mark.slow
def test_shards_may_begin_at_the_same_moment(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path / "whole", rows_per_file=3))
    options = {"rows_per_file": 3, "shards": 4}
    asked = [request(bundle, photos, tmp_path / "out", shard=i, **options) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(score, asked))
    assert sum(d.images for d in done) == 25
    assert read(tmp_path / "out") == read(tmp_path / "whole")
    assert json.loads((tmp_path / "out/_SUCCESS.json").read_text())["rows"] == 23
    # To have a part scored again takes the job's end back, until that is done.
    next((tmp_path / "out").glob("part-00002-*")).unlink()
    (tmp_path / "out/_SUCCESS.json").rename(tmp_path / "before.json")
    score(asked[2])
    after = (tmp_path / "out/_SUCCESS.json").read_text()
    assert after == (tmp_path / "before.json").read_text()


def test_more_shards_than_ranges_leave_some_with_nothing_to_do(bundle, photos, tmp_path):
    done = [score(request(bundle, photos, tmp_path, shard=i, shards=7)) for i in range(7)]
    assert sorted(d.images for d in done) == [0, 0, 0, 1, 8, 8, 8]
    assert (tmp_path / "_SUCCESS.json").exists()


# Kinds of input


def as_paths(photos, rows):
    """The rows with names relative to the photos."""
    return [row | {"path": row["path"].removeprefix(f"{photos}/")} for row in rows]


def test_a_list_keeps_its_order_names_and_repetitions(bundle, photos, truth, tmp_path):
    names = ["a/00.png", "z.png", "a/00.png", str(photos / "ab/c/03.png"), "missing ünd.png", "ab"]
    names += ["ab/01.png\t0,1,0"]
    (photos / "list.txt").write_text("\n".join(names[:3]) + "\n\n" + "\r\n".join(names[3:]))
    score(request(bundle, photos / "list.txt", tmp_path))
    rows, errors = read(tmp_path)
    good = [names[0], names[2], names[3], "ab/01.png"]
    assert [row["path"] for row in rows] == good
    paths = [truth[os.path.join(photos, name)] for name in good]
    paths = [result | {"input_path": name} for name, result in zip(good, paths, strict=True)]
    assert rows == as_rows(paths)
    assert [row["path"] for row in errors] == ["z.png", "missing ünd.png", "ab"]
    told = ["the file is empty", "there is no such file", "this is a folder"]
    assert all(t in row["error"] for t, row in zip(told, errors, strict=True))


CSV_LISTS = {
    "no header": "{0},cat\n{1},dog\n{2},cat\n",
    "header": "label,Path\ncat,{0}\ndog,{1}\ncat,{2}\n",
    "semicolons": "\ufefffilename;label\r\n{0};0,5\r\n{1};1\r\n{2};\r\n",
    "tabs": "{0}\t0,1\n{1}\t1,0\n\n{2}\t1,1\n",
    "one column": "{0}\n{1}\n{2}",
    "quoted": 'id,image,note\n1,"{0}","a, b\nc"\n2,"{1}",\n3,"{2}",x\n',
    "header alone": "url\n{0}\n{1}\n{2}\n",
}


@pytest.mark.parametrize("kind", CSV_LISTS)
def test_the_column_of_paths_in_a_table_of_text_is_read(bundle, photos, tmp_path, kind):
    names = ["a/00.png", "b.jpg", str(photos / "ab/c/03.png")]
    suffix = "tsv" if kind == "tabs" else "csv"
    (photos / f"list.{suffix}").write_text(CSV_LISTS[kind].format(*names), encoding="utf-8")
    score(request(bundle, photos / f"list.{suffix}", tmp_path))
    rows, errors = read(tmp_path)
    assert [row["path"] for row in rows] == [names[0], names[2]]
    assert [row["path"] for row in errors] == [names[1]]


def test_a_column_of_a_table_of_text_can_be_named(bundle, photos, tmp_path):
    (photos / "list.csv").write_text("path,Bild\nx,a/00.png\ny,ab/01.png\nz,\n")
    score(request(bundle, photos / "list.csv", tmp_path / "out", image_column="Bild"))
    rows, errors = read(tmp_path / "out")
    assert [row["path"] for row in rows] == ["a/00.png", "ab/01.png"]
    assert [row["error"] for row in errors] == ["null: there is no path in this row"]
    with pytest.raises(InputError, match="image_column=bild: there is no such column") as caught:
        score(request(bundle, photos / "list.csv", tmp_path / "no", image_column="bild"))
    assert "path, Bild" in caught.value.hint
    (photos / "list.csv").write_text("id,path\n1,a/00.png\n2\n")
    with pytest.raises(InputError, match="list.csv:3: has no column path"):
        score(request(bundle, photos / "list.csv", tmp_path / "no"))
    (photos / "list.csv").write_bytes(b"path,label\na/00.png,\xff\n")
    with pytest.raises(InputError, match="list.csv:2: is no UTF-8 text"):
        score(request(bundle, photos / "list.csv", tmp_path / "no"))
    (photos / "list.csv").write_text(f'path\n"{"x" * 200_000}\n')
    with pytest.raises(InputError, match="list.csv:2: is no table: field larger"):
        score(request(bundle, photos / "list.csv", tmp_path / "no"))


def test_lists_may_be_of_windows_of_excel_and_of_the_home_folder(
    bundle, photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(photos))
    (photos / "list.txt").write_text("a\\00.png\n~/a/00.png\n")
    (photos / "list.csv").write_text("sep=;\r\nlabel;path\r\ncat;a/00.png\r\n")
    for name, number in (("list.txt", 2), ("list.csv", 1)):
        done = score(request(bundle, photos / name, tmp_path / name))
        assert (done.rows, done.broken) == (number, 0)


def test_a_job_in_which_nothing_could_be_read_does_not_end_well(bundle, photos, tmp_path):
    (photos / "pairs.txt").write_text("a/00.png,cat\nab/01.png,dog\n")
    asked = request(bundle, photos / "pairs.txt", tmp_path)
    for _ in range(2):
        with pytest.raises(DataError, match="none of its 2 images could be read; the first:") as e:
            score(asked)
        assert "a/00.png,cat: there is no such file" in e.value.message
        assert "--image_column" in e.value.hint and str(tmp_path) in e.value.hint
    assert not (tmp_path / "_SUCCESS.json").exists()
    assert len(read(tmp_path)[1]) == 2


def test_patterns_and_other_ways_to_name_a_folder(bundle, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    (tmp_path / "photos").symlink_to(photos)
    for number, source in enumerate(
        [f"~/{photos.name}", photos.as_uri(), f"file://localhost{photos}", f"{tmp_path}/pho*"]
    ):
        done = score(request(bundle, source, tmp_path / str(number)))
        assert (done.images, done.rows) == (25, 23)
    with pytest.raises(InputError, match=r"ab/\*.png: matches [0-9]+ files") as caught:
        score(request(bundle, f"{photos}/ab/*.png", tmp_path / "no"))
    assert "folder" in caught.value.hint


@pytest.fixture
def web(photos):
    with serve(photos) as server:
        yield server.url


def test_urls_are_fetched(bundle, photos, truth, tmp_path, web):
    store = fsspec.filesystem("memory")
    store.pipe("/photos/x.png", (photos / "a/00.png").read_bytes())
    names = [f"{web}/a/00.png", f"{web}/none.png", "memory://photos/x.png", "memory://photos/no"]
    (tmp_path / "urls.txt").write_text("\n".join(names))
    score(request(bundle, tmp_path / "urls.txt", tmp_path / "out"))
    rows, errors = read(tmp_path / "out")
    wanted = truth[str(photos / "a/00.png")]
    assert rows == as_rows([wanted | {"input_path": names[i]} for i in (0, 2)])
    assert [row["path"] for row in errors] == [names[1], names[3]]


class Down(fsspec.AbstractFileSystem):
    """A store that is down."""

    protocol = "down"

    def __init__(self, *arguments, **options):
        raise RuntimeError("no credentials")


class Breaking(fsspec.AbstractFileSystem):
    """A store that breaks off while a file is read."""

    protocol = "breaking"

    def open(self, path, *_, **options):
        return Breaks()


class Breaks(io.RawIOBase):
    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, *_):
        return 100

    def tell(self):
        return 100

    def readinto(self, _):
        raise RuntimeError("broken off")


def test_lines_of_stores_that_cannot_be_reached_are_rows(bundle, photos, tmp_path):
    fsspec.register_implementation("down", Down, clobber=True)
    names = ["down://bucket/x.png", "nonsense://bucket/x.png", "http://[::1/x.png", "s3:///", "://"]
    names += ["file://elsewhere/x.png", "file://localhost" + str(photos / "a/00.png")]
    (tmp_path / "urls.txt").write_text("\n".join([*names, str(photos / "ab/01.png")]))
    score(request(bundle, tmp_path / "urls.txt", tmp_path / "out"))
    rows, errors = read(tmp_path / "out")
    assert [row["path"] for row in rows] == [names[-1], str(photos / "ab/01.png")]
    assert [row["path"] for row in errors] == names[:-1]
    assert "down://bucket/x.png: cannot be read: " in errors[0]["error"]
    assert "no credentials" in errors[0]["error"]
    with pytest.raises(InputError, match="down://bucket/list.txt: cannot be read: no credentials"):
        score(request(bundle, "down://bucket/list.txt", tmp_path / "no"))
    with pytest.raises(InputError, match="down://bucket: cannot be read: no credentials"):
        score(request(bundle, "down://bucket", tmp_path / "no"))
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    for name, error in (("x.txt", InputError), ("x.parquet", DataError)):
        with pytest.raises(error, match=f"breaking://{name}: cannot be read: broken off"):
            score(request(bundle, f"breaking://{name}", tmp_path / "no"))


def test_remote_folders_and_tables_are_read_by_fsspec(bundle, photos, truth, tmp_path):
    store = fsspec.filesystem("memory")
    store.put(f"{photos}/", "/remote", recursive=True)
    score(request(bundle, "memory://remote", tmp_path / "folder"))
    rows, errors = read(tmp_path / "folder")
    assert rows == [
        row | {"path": row["path"].replace(str(photos), "memory://remote")}
        for row in as_rows(truth.values())
    ]
    assert len(errors) == 2
    table = pa.table({"image": [(photos / "a/00.png").read_bytes()]})
    with store.open("/tables/x.parquet", "wb") as file:
        pq.write_table(table, file)
    score(request(bundle, "memory://tables", tmp_path / "tables"))
    rows, _ = read(tmp_path / "tables")
    assert [row["path"] for row in rows] == ["x.parquet#0"]
    assert rows[0]["class_ids"] == truth[str(photos / "a/00.png")]["class_ids"]


@pytest.mark.parametrize("kind", ["paths", "bytes", "struct", "large bytes"])
def test_parquet_holds_paths_or_encoded_images(bundle, photos, truth, tmp_path, kind):
    names = [path.removeprefix(f"{photos}/") for path in truth]
    encoded = [(photos / name).read_bytes() for name in names]
    columns = {
        "paths": {"id": list(range(25)), "path": [str(photos / n) for n in names]},
        "bytes": {"label": names, "file_name": names, "jpg": encoded},
        "struct": {"image": [{"bytes": e, "path": n} for e, n in zip(encoded, names, strict=True)]},
        "large bytes": {"file_name": names, "x": pa.array(encoded, pa.large_binary())},
    }[kind]
    table = pa.table(columns)
    folder = tmp_path / "in"
    folder.mkdir()
    # Row groups and files whose borders are none of the ranges', and one without rows.
    pq.write_table(table.slice(0, 14), folder / "0.parquet", row_group_size=5)
    pq.write_table(table.slice(0, 0), folder / "1.parquet")
    pq.write_table(table.slice(14), folder / "2.parquet", row_group_size=100)
    score(request(bundle, folder, tmp_path / "out"))
    rows, errors = read(tmp_path / "out")
    assert as_paths(photos, rows) == as_paths(photos, as_rows(truth.values()))
    assert [row["path"] for row in errors] == [
        str(photos / n) if kind == "paths" else n for n in ("b.jpg", "z.png")
    ]


@pytest.mark.parametrize("kind", ["dictionary", "string view", "dictionary of bytes", "view"])
def test_columns_of_other_layouts_are_text_and_images_too(bundle, photos, tmp_path, kind):
    names = ["a/00.png", "b.jpg", "a/00.png"]
    paths = [str(photos / name) for name in names]
    encoded = [(photos / name).read_bytes() for name in names]
    columns = {
        "dictionary": {"path": pa.array(paths).dictionary_encode()},  # pandas' category
        "string view": {"path": pa.array(paths, pa.string_view())},
        "dictionary of bytes": {"jpg": pa.array(encoded).dictionary_encode(), "path": paths},
        "view": {"jpg": pa.array(encoded, pa.binary_view()), "path": paths},
    }[kind]
    pq.write_table(pa.table(columns | {"n": [1, 2, 3]}), tmp_path / "x.parquet")
    for number, column in enumerate([None, next(iter(columns))]):  # found out, and named
        output = tmp_path / str(number)
        score(request(bundle, tmp_path / "x.parquet", output, image_column=column))
        rows, errors = read(output)
        assert [row["path"] for row in rows] == [paths[0], paths[2]]
        assert [row["path"] for row in errors] == [paths[1]]


@pytest.mark.parametrize("kind", ["paths", "bytes", "struct"])
def test_a_null_is_called_one(bundle, photos, tmp_path, kind):
    path = photos / "a/00.png"
    columns = {
        "paths": {"path": [str(path), None, ""]},
        "bytes": {"jpg": [path.read_bytes(), None, b""]},
        "struct": {
            "image": [
                {"bytes": path.read_bytes(), "path": None},
                None,
                {"bytes": None, "path": None},
            ]
        },
    }[kind]
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    score(request(bundle, tmp_path / "x.parquet", tmp_path / "out"))
    rows, errors = read(tmp_path / "out")
    assert len(rows) == 1
    assert [row["path"] for row in errors] == ["x.parquet#1", "x.parquet#2"]
    last = "the file is empty" if kind == "bytes" else "null: there is no image in this row"
    assert [row["error"] for row in errors] == [
        "x.parquet#1: null: there is no image in this row",
        f"x.parquet#2: {last}",
    ]


def test_columns_can_be_named(bundle, photos, tmp_path):
    image = (photos / "a/00.png").read_bytes()
    table = pa.table({"left": [image], "right": [image], "who": ["me"], "n": [1]})
    pq.write_table(table, tmp_path / "x.parquet")
    for number, (column, path) in enumerate([("left", None), ("right", "who")]):
        output = tmp_path / str(number)
        score(
            request(bundle, tmp_path / "x.parquet", output, image_column=column, path_column=path)
        )
        assert read(output)[0][0]["path"] == ("me" if path else "x.parquet#0")
    for options, told in [
        ({}, "which column holds the images"),
        ({"image_column": "n"}, "image_column=n: there is no such column"),
        ({"image_column": "left", "path_column": "right"}, "path_column=right: there is no such"),
    ]:
        with pytest.raises(InputError, match=told):
            score(request(bundle, tmp_path / "x.parquet", tmp_path / "no", **options))


def test_a_damaged_table_ends_the_job_and_is_named(bundle, photos, tmp_path):
    image = (photos / "a/00.png").read_bytes()
    table = pa.table({"image": [image + bytes([i]) * 999 for i in range(64)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=16)
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match="x.parquet: cannot be read"):
        score(request(bundle, tmp_path / "x.parquet", tmp_path / "out"))
    assert not (tmp_path / "out/_SUCCESS.json").exists()


def test_packed_data_sets_are_read(bundle, truth, tmp_path):
    good = [Path(path) for path, r in truth.items() if "error" not in r]
    splits = {"train": Files(good[:11], ("a",)), "validation": Files(good[11:], ("a",))}
    pack(splits, tmp_path / "packed", shard_size=4)
    score(request(bundle, tmp_path / "packed", tmp_path / "all"))
    assert read(tmp_path / "all")[0] == as_rows(truth.values())
    score(request(bundle, tmp_path / "packed", tmp_path / "some", split="validation"))
    assert read(tmp_path / "some")[0] == as_rows(truth[str(path)] for path in good[11:])
    with pytest.raises(InputError, match="split=test: there is no such split"):
        score(request(bundle, tmp_path / "packed", tmp_path / "none", split="test"))


@pytest.mark.slow
def test_pages_are_rows_of_their_own(bundle, photos, tmp_path):
    pages = [Image.open(photos / name) for name in ("a/00.png", "ab/01.png", "ab/02.png")]
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.tif", "c.tif"):
        pages[0].save(root / name, save_all=True, append_images=pages[1:])
    pages[0].save(root / "b.png")
    done = score(request(bundle, root, tmp_path / "out", rows_per_file=2, batch_size=3))
    found = Predictor(read_bundle(bundle), batch_size=3).predict(root)
    rows, _ = read(tmp_path / "out")
    assert rows == as_rows(found)
    assert [row["page_index"] for row in rows] == [0, 1, 2, None, 0, 1, 2]
    assert (done.images, done.rows, done.broken) == (3, 7, 0)


def test_names_may_hold_anything(bundle, tmp_path):
    names = ["new\nline.png", 'quo"te.png', "tab\t.png", "猫.png"]
    write_pictures(tmp_path / "in", names)
    score(request(bundle, tmp_path / "in", tmp_path / "out"))
    assert [row["path"] for row in read(tmp_path / "out")[0]] == [
        f"{tmp_path}/in/{name}" for name in sorted(names)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_not_utf_8_are_escaped(bundle, tmp_path):
    folder = os.fsencode(tmp_path) + b"/in\xff"
    write_pictures(Path(os.fsdecode(folder)), ["ok.png"])
    os.rename(folder + b"/ok.png", folder + b"/\xd6\xd0.png")
    with open(folder + b"/\xd6.jpg", "wb") as file:
        file.write(b"broken")
    for _ in range(2):
        done = score(request(bundle, os.fsdecode(folder), tmp_path / "out"))
    assert (done.images, done.rows, done.scored) == (2, 1, 0)
    rows, errors = read(tmp_path / "out")
    assert [row["path"] for row in rows] == [rf"{tmp_path}/in\xff/\xd6\xd0.png"]
    assert [row["path"] for row in errors] == [rf"{tmp_path}/in\xff/\xd6.jpg"]
    assert errors[0]["error"].startswith(rf"{tmp_path}/in\xff/\xd6.jpg: this is not an image")
    (tmp_path / "out/part-00000-000000.parquet").unlink()
    with open(folder + b"/new.jpg", "wb"):  # and so the same folder, but grown
        pass
    assert score(request(bundle, os.fsdecode(folder), tmp_path / "out")).scored == 2


# Interruptions


@pytest.mark.slow
def test_killed_again_and_again_each_image_is_there_once(bundle, tmp_path):
    write_pictures(tmp_path / "in", [f"{i:03d}.png" for i in range(200)])
    for broken in ("005.png", "123.png", "199.png"):
        (tmp_path / "in" / broken).write_bytes(b"broken")
    options = {"rows_per_file": 7, "batch_size": 2}
    score(request(bundle, tmp_path / "in", tmp_path / "whole", **options))
    whole = contents(tmp_path / "whole")

    output = tmp_path / "out"
    command = [
        *(sys.executable, "-c", toy_backbone.COMMAND, "score", "--model_dir", str(bundle)),
        *("--input", str(tmp_path / "in"), "--output", str(output)),
        *("--rows_per_file", "7", "--batch_size", "2", "--threads", "2"),
    ]
    rng = random.Random(0)
    seen = []
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wanted = len(list(output.glob("part-*"))) + rng.randint(1, 9)
        while len(list(output.glob("part-*"))) < wanted and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(list(output.glob("part-*"))))
        there = {name: data for name, data in contents(output).items() if name[0] == "p"}
        assert there.items() <= whole.items()  # what is there is complete
    assert seen == sorted(seen) and 0 < seen[0] < seen[-1]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "200 images, 3 of them could not be read" in process.stdout
    assert contents(output) == whole
    rows, errors = read(output)
    names = [row["path"] for row in rows + errors]
    assert sorted(names) == [f"{tmp_path}/in/{i:03d}.png" for i in range(200)]
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_ctrl_c_ends_with_the_way_on(bundle, tmp_path):
    write_pictures(tmp_path / "in", [f"{i:03d}.png" for i in range(200)])
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-c", toy_backbone.COMMAND, "score", "--model_dir", str(bundle)),
        *("--input", str(tmp_path / "in"), "--output", str(output), "--rows_per_file", "1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(output.glob("part-*")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert "The same command resumes" in told and "Traceback" not in told
    assert not list(output.glob(".*"))


def test_a_finished_job_computes_nothing(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[_p]*-*")}
    success = (tmp_path / "_SUCCESS.json").read_bytes()
    done = score(request(bundle, photos, tmp_path))
    assert (done.scored, done.images, done.rows, done.broken) == (0, 25, 23, 2)
    assert (tmp_path / "_SUCCESS.json").read_bytes() == success
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    assert parts.items() <= before.items()


def test_two_processes_do_not_score_the_same_shard(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path))
    with locked(tmp_path, ".lock-00000"), pytest.raises(WorkdirError, match="is in use by another"):
        score(request(bundle, photos, tmp_path))


def test_a_part_that_is_deleted_is_scored_again(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path))
    whole = contents(tmp_path)
    (tmp_path / "part-00000-000001.parquet").unlink()
    # Of a try that ended between its two files, when more images were broken.
    (tmp_path / "_errors-00000-000002.parquet").write_bytes(b"old")
    (tmp_path / "part-00000-000002.parquet").unlink()
    done = score(request(bundle, photos, tmp_path))
    assert done.scored == 16
    assert contents(tmp_path) == whole


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("kind", ["part", "_errors", "_sha256"])
def test_what_is_damaged_is_scored_again(bundle, photos, tmp_path, caplog, kind, damage):
    score(request(bundle, photos, tmp_path))
    whole = contents(tmp_path)
    damage(min(tmp_path.glob(f"{kind}-*")))
    done = score(request(bundle, photos, tmp_path))
    assert "is damaged, and scored again" in caplog.text and 0 < done.scored <= 8
    assert contents(tmp_path) == whole
    assert score(request(bundle, photos, tmp_path)).scored == 0


def test_a_job_goes_on_in_the_precision_that_it_began_with(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path, precision="float32"))
    done = score(request(bundle, photos, tmp_path), local_engine, platform=lambda: "gpu")
    assert done.scored == 0 and begun_precision(tmp_path) == "float32"


@pytest.mark.slow
def test_a_job_begun_on_accelerators_is_of_bfloat16_on_every_machine(bundle, photos, tmp_path):
    def engine(job, ranges):
        predictor = open_predictor(job.request, read_bundle(Path(job.request.model_dir)))
        yield from score_here(predictor, job, open_job_input(job), ranges)

    score(request(bundle, photos, tmp_path / "a", shards=2), engine, platform=lambda: "gpu")
    score(request(bundle, photos, tmp_path / "a", shards=2, shard=1))
    assert begun_precision(tmp_path / "a") == "bfloat16"
    for shard in range(2):
        options = {"shards": 2, "shard": shard, "precision": "bfloat16"}
        score(request(bundle, photos, tmp_path / "b", **options))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    score(request(bundle, photos, tmp_path / "c"))
    assert begun_precision(tmp_path / "c") == "float32"


def begun_precision(output):
    return json.loads((output / "_job.json").read_text())["options"]["precision"]


def test_a_part_that_is_damaged_while_the_job_runs_is_scored_again(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path / "whole"))

    def engine(job, ranges):
        predictor = open_predictor(job.request, read_bundle(Path(job.request.model_dir)))
        yield from score_here(predictor, job, open_job_input(job), ranges)
        if len(ranges) > 1:
            flip(job.part(1))

    score(request(bundle, photos, tmp_path / "out"), engine)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_checksums_are_those_of_the_usual_tool(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path))
    names = sorted(path.name for path in tmp_path.glob("_sha256-*"))
    assert len(names) == 4
    for name in names:
        subprocess.run(["sha256sum", "--check", "--quiet", name], cwd=tmp_path, check=True)
    listed = [line.split()[1] for name in names for line in (tmp_path / name).open()]
    assert sorted(listed) == sorted(contents(tmp_path))


def test_a_job_of_a_version_without_checksums_goes_on(bundle, photos, tmp_path):
    score(request(bundle, photos, tmp_path))
    whole = contents(tmp_path)
    for path in tmp_path.glob("_sha256-*"):
        path.unlink()
    assert score(request(bundle, photos, tmp_path)).scored == 0
    cut(tmp_path / "part-00000-000000.parquet")
    assert score(request(bundle, photos, tmp_path)).scored == 8
    assert contents(tmp_path) == whole


def test_a_damaged_end_of_another_shard_is_told(bundle, photos, tmp_path):
    asked = [request(bundle, photos, tmp_path, shard=i, shards=2) for i in range(2)]
    score(asked[0])
    cut(tmp_path / "_SUCCESS-0-of-2.json")
    with pytest.raises(WorkdirError, match=r"_SUCCESS-0-of-2.json: cannot be read"):
        score(asked[1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 5}, "batch_size: 4 when the job began, now 5"),
        ({"rows_per_file": 9}, "rows_per_file: 8 when the job began, now 9"),
        ({"shards": 2}, "shards: 1 when the job began, now 2"),
        ({"threshold": 0.7}, "threshold: 0.5 when the job began, now 0.7"),
        ({"all_scores": True}, "all_scores: false when the job began, now true"),
        ({"precision": "bfloat16"}, 'precision: "float32" when the job began, now "bfloat16"'),
    ],
)
def test_other_options_are_refused(bundle, photos, tmp_path, change, told):
    score(request(bundle, photos, tmp_path))
    before = contents(tmp_path)
    with pytest.raises(WorkdirError, match=told) as caught:
        score(request(bundle, photos, tmp_path, **change))
    assert str(tmp_path / "_job.json") in caught.value.message
    assert contents(tmp_path) == before


def test_another_model_is_refused(bundle, photos, tmp_path):
    write_small(tmp_path / "model", "Toy_ML", threshold=0.5)
    score(request(tmp_path / "model", photos, tmp_path / "out"))
    calibration = {"method": "none"}
    update_bundle(tmp_path / "model", threshold=0.5, temperature=2.0, calibration=calibration)
    with pytest.raises(WorkdirError, match="temperature: 1.0 when the job began, now 2.0"):
        score(request(tmp_path / "model", photos, tmp_path / "out"))


def test_a_folder_that_has_grown_goes_on_as_it_was(bundle, tmp_path, caplog):
    write_pictures(tmp_path / "in", [f"{i}.png" for i in range(9)])
    score(request(bundle, tmp_path / "in", tmp_path / "out"))
    write_pictures(tmp_path / "in", ["00.png", "1a.png"])
    (tmp_path / "in/7.png").unlink()
    (tmp_path / "out/part-00000-000000.parquet").unlink()
    done = score(request(bundle, tmp_path / "in", tmp_path / "out"))
    assert "2 images are new and not part of the job, 1 are gone" in caplog.text
    assert (done.images, done.rows, done.broken) == (9, 8, 1)
    assert len(list((tmp_path / "out").glob("_index*"))) == 1


def test_another_input_is_refused(bundle, tmp_path):
    write_pictures(tmp_path / "one", ["a.png", "b.png"])
    write_pictures(tmp_path / "two", ["a.png", "c.png", "d.png"])
    score(request(bundle, tmp_path / "one", tmp_path / "out"))
    told = "1 of its 2 names are missing, 2 are new"
    with pytest.raises(WorkdirError, match=told):
        score(request(bundle, tmp_path / "two", tmp_path / "out"))
    (tmp_path / "one/list.txt").write_text("a.png\nb.png")
    with pytest.raises(WorkdirError, match="is not the input"):
        score(request(bundle, tmp_path / "one/list.txt", tmp_path / "out"))
    # The same images at another place, as other machines have them, are the same input.
    (tmp_path / "one").rename(tmp_path / "moved")
    (tmp_path / "out/part-00000-000000.parquet").unlink()
    score(request(bundle, tmp_path / "moved", tmp_path / "out"))
    assert [r["path"] for r in read(tmp_path / "out")[0]] == [
        f"{tmp_path}/one/{name}" for name in ("a.png", "b.png")
    ]


def test_the_folders_of_others_are_left_alone(bundle, photos, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="is not empty, and no job's"):
        score(request(bundle, photos, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(WorkdirError, match="must be a folder, not a URL"):
        score(request(bundle, photos, "s3://bucket/out"))


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing_half_written(bundle, photos, tmp_path):
    command = [
        *(sys.executable, "-c", toy_backbone.COMMAND, "score", "--model_dir", str(bundle)),
        *("--input", str(photos), "--output", str(tmp_path / "out"), "--rows_per_file", "8"),
    ]
    # No file above 2 KiB, as if the disk were full then: part files have more.
    shell = ["bash", "-c", 'trap "" XFSZ; ulimit -f 2; exec "$@"', "-", *command]
    process = subprocess.run(shell, capture_output=True, text=True)
    assert process.returncode == 1
    assert "part-00000-000000.parquet: cannot be written: File too large" in process.stderr
    assert "the same command resumes" in process.stderr
    assert {path.name[:6] for path in (tmp_path / "out").iterdir()} <= {"_index", "_job.j"}


# Wrong usage


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda p: p / "none", InputError, "there is no such file or folder"),
        (lambda p: p, InputError, "no image in it"),
        (lambda p: p / "x.png", InputError, "this is one image"),
        (lambda p: p / "x.bin", InputError, "x.bin:1: is no UTF-8 text"),
        (lambda p: p / "x.parquet", DataError, "x.parquet: is no Parquet file"),
    ],
)
def test_inputs_that_cannot_be_used_are_told(bundle, tmp_path, make, error, told):
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    if source.suffix:
        source.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(error, match=told):
        score(request(bundle, source, tmp_path / "out"))
    assert list((tmp_path / "out").glob("part-*")) == []


def test_an_output_folder_that_was_there_stays_where_the_model_is_missing(photos, tmp_path):
    (tmp_path / "ours").mkdir()
    for name in ("ours", "new"):
        with pytest.raises(UserError, match="nowhere"):
            score(request(tmp_path / "nowhere", photos, tmp_path / name))
    assert (tmp_path / "ours").exists() and not (tmp_path / "new").exists()


def test_the_output_must_not_become_input(bundle, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    pq.write_table(pa.table({"image": [buffer.getvalue()]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="lies in the input folder"):
        score(request(bundle, tmp_path, tmp_path / "out"))


def test_the_command_takes_its_options(bundle, photos, tmp_path, capsys):
    given = ["--model_dir", bundle, "--input", photos, "--output", tmp_path / "out"]
    given = [str(value) for value in given]
    told = run([*given, "--threshold", '{"cat": 0.2}', "--shard=1/2", "--rows_per_file=8"])
    assert "shard 1/2: 9 images, 2 of them could not be read." in told
    assert str(tmp_path / "out/part-00001-*.parquet") in told
    for wrong in (["--shard=2"], ["--threshold=high"], ["--batch_size=0"], ["--address=auto"]):
        with pytest.raises(SystemExit):
            run([*given, *wrong])
        assert wrong[0].split("=")[0] in capsys.readouterr().err
    with pytest.raises(InputError, match="shard 2/2"):
        run([*given, "--shard=2/2"])
    with pytest.raises(InputError, match="threshold is 2"):
        run([*given, "--threshold=2"])
