"""The page in headless Chromium: 20,000 images, mended by keyboard in two windows."""

import json
import re
from contextlib import contextmanager

import pytest

from mlcls_jax import config as schema
from mlcls_jax.config import Data
from mlcls_jax.data.checks import check
from tests.helpers.browser import chromium, needs_chromium, open_tab
from tests.helpers.bundles import write_small
from tests.helpers.server_process import wait
from tests.helpers.studio import LABELS, studio, write_dataset

pytestmark = [needs_chromium, pytest.mark.slow]

EVIL = "<img src=x onerror=document.title='hacked'>.png"
CURRENT = "$('current').textContent"
STATUS = "$('status').textContent"
FOUND = "found.length"


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as port:
        yield port


@contextmanager
def window(server, port, *, width=1280, height=800):
    tab = open_tab(port, width=width, height=height, is_phone=width < 500)
    show(tab, server)
    yield tab
    assert not tab.problems
    tab.send("Page.close")


def show(tab, server):
    tab.send("Page.navigate", url="about:blank")
    tab.send("Page.navigate", url=server.address)
    wait_for(tab, f"state !== null && {FOUND} > 0 && details !== null")


def wait_for(tab, script):
    """Until an expression holds; scripts of the page may not have run yet."""

    def holds():
        return tab.run(
            f"(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()"
        )

    wait(holds, 30)


def set_filter(tab, name, value):
    tab.run(f"$('{name}').value = {json.dumps(value)};")
    tab.run(f"$('{name}').dispatchEvent(new Event('input', {{ bubbles: true }}))")


def digit(tab, number, *, shift=False):
    """Press the number key; returns when the server has answered."""
    tab.press(number, ord(number), code=f"Digit{number}", modifiers=8 if shift else 0)


def idle(tab):
    tab.send("Runtime.evaluate", expression="chain", awaitPromise=True)


def test_twenty_thousand_images_are_scrolled_filtered_and_mended_by_keyboard(tmp_path, port):
    names = [EVIL, *(f"{i:05d}.png" for i in range(1, 20_000))]
    folder = write_dataset(tmp_path / "data", train=18_000, val=2_000, names=names)
    with studio("--data", folder) as server, window(server, port) as tab:
        assert tab.run(FOUND) == 20_000
        # No more is in the page than what is in sight, at its end as at its beginning.
        wait_for(tab, "document.querySelector('.cell img')?.naturalWidth > 0")
        assert tab.run("cells.size") < 100
        assert tab.run(CURRENT) == f"images/{EVIL}"
        tab.press("End", 35)
        wait_for(tab, f"{CURRENT} === 'images/19999.png'")
        wait_for(tab, "$('cell-19999').querySelector('img')?.naturalWidth > 0")
        assert tab.run("cells.size") < 100
        assert tab.run("document.title") == "data – studio"
        # Filters: of 2,000, every fifth has the label of the number 3.
        set_filter(tab, "list", "val.txt")
        set_filter(tab, "label", "2")  # chooses "present" as well
        wait_for(tab, f"{FOUND} === 400")
        tab.run("$('sheet').focus()")

        # Fifty by fifty key strokes, each an image: the label is taken away.
        for _ in range(50):
            digit(tab, "3")
            tab.press("ArrowRight", 39)
        idle(tab)
        wait_for(tab, "state.changed === 50")
        for _ in range(20):
            tab.press("z", 90)
        idle(tab)
        for _ in range(5):
            tab.press("Z", 90, modifiers=8)
        idle(tab)
        # Three at once, of which nobody is sure.
        tab.press("Home", 36)
        for _ in range(2):
            tab.press("ArrowRight", 39, modifiers=8)
        digit(tab, "1", shift=True)
        idle(tab)
        assert tab.run(STATUS) == "cat, 3 images: not sure."
        wanted = tab.run("[...found].slice(0, 50).map((row) => rows.get(row).present.join())")
        assert wanted == [""] * 35 + ["2"] * 15

        # What may be undone outlives a reload; what is filtered, too.
        tab.send("Page.reload")
        wait_for(tab, f"state?.changed === 50 && {FOUND} === 365")
        wait_for(tab, "!$('undo').disabled")
        tab.run("$('undo').click()")
        wait_for(tab, f"{STATUS} === 'Undone: cat, 3 images.'")
        tab.run("$('write').click()")
        wait_for(tab, f"{STATUS}.startsWith('Written: val.txt')")
        wait_for(tab, "$('write').disabled")
        assert server.json("/state")["changed"] == 0
        assert len(server.rows("list=val.txt&label=2&value=1")) == 365
    after = (folder / "val.txt").read_text().splitlines()
    before = (folder / "val.txt.bak").read_text().splitlines()
    changed = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert len(changed) == 35
    assert {re.sub(".*\t", "", a) for _, a in changed} == {"0,0,0,0,0"}


def test_two_windows_see_each_others_changes_and_the_check_passes(tmp_path, port):
    folder = write_dataset(tmp_path / "data")
    with (
        studio("--data", folder) as server,
        window(server, port) as one,
        window(server, port, width=400) as other,
    ):
        assert one.run("own.window") != other.run("own.window")
        digit(one, "2")
        wait_for(one, "rows.get(0).present.includes(1)")
        wait_for(other, "details.present.includes(1)")
        # A window that has not heard of it yet changes nothing, and is told.
        other.run("poll = async () => {}; put(0, 1, 0)")
        digit(other, "2", shift=True)
        wait_for(other, f"{STATUS}.startsWith('Another window')")
        assert server.json("/rows?rows=0")[0]["present"] == [0, 1]
        # A narrow window has no scroll bar at its foot, and shows one image.
        assert other.run("document.documentElement.scrollWidth") == 400
        other.run("$('sheet').focus()")
        other.press("Enter", 13)
        wait_for(other, "$('picture').naturalWidth === 64")
        edges = "['side', 'status'].map((id) => $(id).getBoundingClientRect())"
        side, status = other.run(f"{edges}.map(({{ top, bottom }}) => [top, bottom])")
        assert side[1] <= status[0]  # nothing lies over the last line
        other.press("ArrowRight", 39)
        wait_for(other, f"{CURRENT} === 'images/00001.png'")
        other.press("Escape", 27)
        assert other.run("$('viewer').hidden")
        one.run("$('write').click()")
        wait_for(one, f"{STATUS}.startsWith('Written')")
        # Labels whose names are HTML are shown as they are.
        names = one.run("[...document.querySelectorAll('#labels bdi')].map((e) => e.textContent)")
        assert names == [*LABELS]
    assert check(folder, Data(), pixels=False, threads=1).passed


def test_two_models_are_held_side_by_side_and_a_dropped_picture_finds_its_like(
    toy, tmp_path, monkeypatch, port
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_dataset(tmp_path / "data")
    small = {"size": (64, 96)}
    one = write_small(
        tmp_path / "one" / "best_model", "Toy_ML", labels=LABELS, threshold=1.0, **small
    )
    two = write_small(tmp_path / "two", "Toy_ML", labels=LABELS[:3], threshold=0.001, **small)
    with studio("--data", folder, "--model_dir", one, two) as server, window(server, port) as tab:
        wait_for(tab, "[0, 1].every((m) => state.jobs[`scores${m}`].state === 'done')")
        wait_for(tab, "details.said.every(Boolean)")
        first, second = server.json("/row/0")["scores"]
        assert second[3:] == [None, None] and None not in first
        shown = tab.run(
            "[...document.querySelectorAll('#labels .score')].map((e) => e.textContent)"
        )
        known = zip(first, second, strict=True)
        assert shown == [f"{a:.2f} · {'–' if b is None else f'{b:.2f}'}" for a, b in known]
        assert tab.run("$('models').textContent") == f"Scores: {tmp_path / 'one'} · {two}"
        # The second reports all that it knows, and what the first does not say is marked.
        said = server.json("/row/0")["said"]
        assert said == [[], [0, 1, 2]]
        assert tab.run("parted(details)") == [0, 1, 2]
        set_filter(tab, "sort", "differ")
        wait_for(tab, "location.hash.includes('sort=differ')")
        set_filter(tab, "model", "1")
        wait_for(tab, "differing(details).includes(1)")

        # Beside it is the page that mlcls compare writes, with a policy of its own.
        tab.send("Page.navigate", url=f"{server.address}compare")
        wait_for(tab, "document.querySelector('h1')?.textContent === 'Runs side by side'")
        assert str(two) in tab.run("document.querySelector('thead').textContent")
        rows = "[...document.querySelectorAll('tr')].map((e) => e.innerText.split('\\t'))"
        facts = {name: values for name, *values in tab.run(rows)}
        (times,) = (values for name, values in facts.items() if name.startswith("ms/image, "))
        assert len(times) == 2 and all(0 < float(value) < 1000 for value in times)
        assert [float(value) > 0 for value in facts["MB"]] == [True, True]
        show(tab, server)

        picture, box = folder / "images" / "00004.png", {"x": 400, "y": 400}
        files = {"items": [], "files": [str(picture)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            tab.send("Input.dispatchDragEvent", type=kind, data=files, **box)
        wait_for(tab, f"{STATUS} === 'The images most like 00004.png come first.'")
        assert tab.run("found[0]") == 4


def test_who_reads_a_table_of_a_training_stays_there_while_it_grows(tmp_path, port):
    config = schema.default()
    config.data.source = "digits"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(schema.to_yaml(schema.parse(config)))
    lines = [json.dumps({"step": n, "epoch": n, "raw/MultiLabelMAP": n / 9}) for n in range(1, 4)]
    metrics = tmp_path / "run/metrics.jsonl"
    metrics.write_text("\n".join(lines[:2]) + "\n")
    with studio("--run", tmp_path / "run") as server:
        tab = open_tab(port, width=1280, height=800)
        tab.send("Page.navigate", url=server.address)
        wait_for(tab, "document.querySelector('#status').textContent.startsWith('As of')")
        region = "document.activeElement.getAttribute('aria-label') === 'Validation'"
        tab.press("Tab", 9)
        wait_for(tab, region)
        with metrics.open("a") as file:
            file.write(lines[2] + "\n")
        wait_for(tab, "document.querySelectorAll('tbody tr').length === 3")
        assert tab.run(region)
        assert not tab.problems
