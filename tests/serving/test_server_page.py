"""The page at /, in headless Chromium, which is driven over its DevTools protocol."""

import json
from contextlib import contextmanager

import pytest

from mlcls_jax.inference.bundle import update_bundle
from tests.helpers.browser import chromium, needs_chromium, open_tab
from tests.helpers.bundles import write_images, write_small
from tests.helpers.server_process import start, wait

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def server(folder):
    labels = tuple(f"<b>label {i}</b>" for i in range(150))
    bundle = write_small(folder / "bundle", "Toy_ML", labels=labels, size=(64, 96))
    facts = {"target": 0.9, "confidence": 0.95, "guaranteed": [*labels[::3]]}
    update_bundle(bundle, threshold=0.5, temperature=1.0, calibration=facts)
    server = start(bundle, folder / "switches", max_batch=1, max_body_mb=1)
    server.wait_for("/ready", 200)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def debugging_port(folder):
    with chromium(folder) as port:
        yield port


@contextmanager
def opened(server, debugging_port):
    """The page on a phone."""
    tab = open_tab(debugging_port, width=390, height=844, is_phone=True)
    tab.send("Page.navigate", url=f"http://127.0.0.1:{server.port}/")
    wait(lambda: tab.run("document.getElementById('about')?.textContent") not in ("", None))
    yield tab
    assert not tab.problems
    tab.send("Page.close")


@pytest.fixture
def tab(server, debugging_port):
    with opened(server, debugging_port) as tab:
        yield tab


PIXELS = "document.getElementById('picture').toDataURL()"
ROWS = "document.querySelectorAll('#labels li').length"
STATUS = "document.getElementById('status').textContent"


def slide(tab, value):
    tab.run(
        "{ const slider = document.getElementById('threshold');"
        f"slider.value = {value}; slider.dispatchEvent(new Event('input')) }}"
    )


@pytest.fixture(scope="module")
def images(folder):
    return write_images(folder / "images", 2)


def scores_of(server, image):
    """By falling score, as the page asks for them."""
    return [c["score"] for c in server.classify(image.read_bytes(), threshold=0.01)["categories"]]


def test_an_image_is_shown_with_its_labels_which_the_slider_filters(tab, server, images):
    assert tab.run("document.getElementById('picture').hidden")
    tab.choose(images[0])
    wait(lambda: "label" in tab.run(STATUS))
    wait(lambda: not tab.run("document.getElementById('picture').hidden"))
    scores = scores_of(server, images[0])
    assert len(scores) > 100
    middle = (scores[9] + scores[10]) / 2
    own = server.classify(images[0].read_bytes())["categories"]
    assert tab.run(ROWS) == len(own) < 100
    promise = tab.run("document.getElementById('promise').textContent")
    assert "a recall of 0.9 is guaranteed for 50 of them" in promise
    names = tab.run("[...document.querySelectorAll('#labels .name')].map((n) => n.textContent)")
    assert [name.endswith("✓") for name in names] == [c["id"] % 3 == 0 for c in own]
    slide(tab, 0.01)  # asks for the others, once
    wait(lambda: tab.run(ROWS) == 100)
    asked = tab.run("performance.getEntriesByType('resource').length")
    for threshold in (0.01, round(middle, 2), 0.99):
        slide(tab, threshold)
        shown = min(sum(score > threshold for score in scores), 100)
        assert tab.run(ROWS) == shown
        assert tab.run(STATUS).startswith(str(shown or "No"))
    assert tab.run("performance.getEntriesByType('resource').length") == asked
    slide(tab, 0.01)
    assert tab.run("document.querySelector('#labels .name').textContent").startswith("<b>label ")
    tab.run("document.getElementById('own').click()")
    assert tab.run(ROWS) == len(own)
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def test_evidence_is_drawn_over_the_picture_by_keyboard(tab, images):
    tab.choose(images[0])
    wait(lambda: not tab.run("document.getElementById('picture').hidden"))
    wait(lambda: "label" in tab.run(STATUS))
    slide(tab, 0.01)
    wait(lambda: tab.run(ROWS) == 100)
    plain = tab.run(PIXELS)
    tab.run("document.querySelector('#labels button').focus()")
    tab.press("Enter", 13)
    pressed = "document.querySelectorAll('#labels [aria-pressed=true]').length"
    assert tab.run(pressed) == 1
    first = tab.run(PIXELS)
    assert first != plain
    assert "label" in tab.run("document.getElementById('picture').getAttribute('aria-label')")
    # The queries of the first and the last of 100 labels are different ones.
    tab.run("[...document.querySelectorAll('#labels button')].at(-1).click()")
    assert tab.run(pressed) == 1
    assert tab.run(PIXELS) not in (plain, first)
    tab.run("document.querySelector('#labels [aria-pressed=true]').click()")
    assert (tab.run(pressed), tab.run(PIXELS)) == (0, plain)


def test_errors_are_told_as_text_and_the_next_image_works(tab, images, folder):
    (folder / "text.png").write_text("not an image")
    tab.choose(folder / "text.png")
    wait(lambda: "not an image" in tab.run(STATUS))
    assert tab.run("document.getElementById('status').className") == "error"
    assert tab.run("document.getElementById('found').hidden")
    (folder / "large.png").write_bytes(bytes(2**20 + 1))
    tab.choose(folder / "large.png")
    wait(lambda: "larger than 1 MB" in tab.run(STATUS))
    # The browser itself reports the answer 422.
    assert len(tab.problems) == 1
    assert "422" in json.dumps(tab.problems.pop())
    tab.choose(images[1])
    wait(lambda: tab.run(ROWS) > 0)
    assert tab.run("document.getElementById('status').className") == ""


def test_each_label_is_filtered_and_marked_by_its_own_threshold(folder, debugging_port, images):
    thresholds = (0.05, 0.25, 0.95, 0.35, 0.45)
    bundle = write_small(folder / "own", "Toy_ML", size=(64, 96), threshold=thresholds)
    server = start(bundle, folder / "own_switches", max_batch=1)
    server.wait_for("/ready", 200)
    with opened(server, debugging_port) as tab:
        assert float(tab.run("document.getElementById('threshold').value")) == 0.41  # their mean
        tab.choose(images[0])
        wait(lambda: "label" in tab.run(STATUS))
        scores = server.classify(images[0].read_bytes(), threshold=0.0)["categories"]
        reported = [c for c in scores if c["score"] > thresholds[c["id"]]]
        own = [(c["name"], f"Reported above {thresholds[c['id']]:.3f}") for c in reported]
        assert 0 < len(own) < len(scores)
        assert marks(tab) == own
        assert tab.run("[...document.querySelectorAll('.bar b')].map(b => b.style.left)") == [
            f"{100 * thresholds[c['id']]:g}%" for c in reported
        ]
        slide(tab, 0.01)  # one for all
        wait(lambda: len(marks(tab)) == len(scores))
        assert {title for _, title in marks(tab)} == {"Reported above 0.010"}
        tab.run("document.getElementById('own').click()")
        assert marks(tab) == own
    assert server.stop() == 0


def marks(tab):
    """Name and title of each label that is shown."""
    item = "[item.querySelector('.name').textContent, item.title]"
    rows = tab.run(f"[...document.querySelectorAll('#labels li')].map(item => {item})")
    return [tuple(row) for row in rows]
