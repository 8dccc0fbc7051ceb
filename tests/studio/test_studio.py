"""A studio in a process of its own: who may ask, names that are HTML, and sudden ends."""

import asyncio
import itertools
import json
import random
import re
import threading
import time
from http.client import HTTPException

import numpy as np
import pytest

from mlcls_jax import config as schema
from mlcls_jax.data.sources import open_split
from mlcls_jax.errors import WorkdirError
from mlcls_jax.reports.live_page import render
from mlcls_jax.reports.predictions import current_pictures
from mlcls_jax.studio.changes import ChangeLog
from mlcls_jax.studio.guard import Guard
from mlcls_jax.studio.routes import make_app
from tests.helpers.bundles import write_images
from tests.helpers.page import Page
from tests.helpers.server_process import wait
from tests.helpers.studio import LABELS, studio, write_dataset

EVIL = "<script>alert(1)<%2Fscript>\"'&amp;.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    names = [EVIL, *(f"{i}.png" for i in range(1, 7))]
    return write_dataset(tmp_path_factory.mktemp("studio") / "data", names=names)


@pytest.fixture(scope="module")
def server(folder):
    with studio("--data", folder) as server:
        yield server


def test_names_that_are_html_are_data_and_the_page_runs_no_script_but_its_own(server):
    assert server.json("/state")["labels"] == list(LABELS)
    (first,) = server.json("/rows?rows=0")
    assert first["name"] == f"images/{EVIL}"
    for path in ("/", "/studio.js", "/state", "/rows?rows=0", "/row/0", "/thumbnail/0", "/image/0"):
        status, content, headers = server.ask(path)
        assert status == 200
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        if headers["content-type"].startswith("text/html"):
            assert b"alert" not in content and b"<script>" not in content
    assert headers["content-type"] == "image/png"


SECURE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def secured(server, path):
    """The status of a path, whose headers must be those of the guard."""
    status, _, headers = server.ask(path)
    assert headers.items() >= SECURE.items(), path
    for part in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert part in headers["content-security-policy"], path
    return status


def test_every_path_has_the_security_headers(server):
    paths = [re.sub("{.*?}", "0", route.path) for route in make_app(None, token=None).routes]
    assert {"/", "/compare", "/evidence/0/0", "/change"} <= {*paths}
    found = {path: secured(server, path) for path in [*paths, "/none"]}
    assert {*found.values()} == {200, 400, 404, 405, 422} and found["/compare"] == 422


def test_an_answer_about_a_fault_of_the_studio_has_them_too():
    sent = []

    async def fail(scope, receive, send):
        raise ZeroDivisionError

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    scope["headers"] = [(b"host", b"localhost")]
    with pytest.raises(ZeroDivisionError):  # which the terminal tells of
        asyncio.run(Guard(fail, token=None)(scope, None, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert sent[0]["status"] == 500 and headers.items() >= SECURE.items()


def test_a_picture_is_asked_for_again_but_not_sent_again(server):
    for path in ("/thumbnail/1", "/image/1"):
        _, content, headers = server.ask(path)
        status, again, _ = server.ask(path, if_none_match=headers["etag"])
        assert content and (status, again) == (304, b"")


def test_other_sites_and_other_names_of_this_machine_are_refused(server):
    body = {"window": "w", "cells": [[0, 1, 0, 1]]}
    own = f"http://127.0.0.1:{server.port}"
    refused = [
        ("/state", None, {"host": f"evil.example:{server.port}"}, 403),  # DNS rebinding
        ("/state", None, {"host": "127.0.0.1.evil.example"}, 403),
        ("/image/0", None, {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ("/state", None, {"origin": "http://evil.example"}, 403),
        ("/change", body, {"origin": "http://evil.example"}, 403),
        ("/change", body, {"origin": "null"}, 403),
        ("/change", body, {"origin": own.replace("127.0.0.1", "localhost")}, 403),
        ("/change", body, {"content_type": "text/plain"}, 415),  # what needs no preflight
        ("/write", body, {"origin": own, "sec_fetch_site": "same-site"}, 403),
        ("/change", {"window": "w" * 2**20}, {}, 413),
        ("/picture", body, {}, 415),
        ("/picture", body, {"content_type": "application/octet-stream", "origin": "null"}, 403),
    ]
    for path, given, headers, status in refused:
        named = {k.replace("_", "-").title(): v for k, v in headers.items()}
        assert server.ask(path, given, **named)[0] == status, (path, headers)
    assert server.json("/state")["revision"] == 0
    assert server.ask("/", Host=f"localhost:{server.port}")[0] == 200


def test_bodies_that_make_no_sense_are_told(server):
    for cells in (
        [[0, 0, 0, 2]],
        [[99, 0, 0, 1]],
        [[0, 5, 0, 1]],
        [[0, 0, 1]],
        [[0, 0, 0, True]],
        1,
    ):
        assert server.ask("/change", {"window": "w", "cells": cells})[0] == 400, cells
    assert server.ask("/change", [1])[0] == 400
    status, told, _ = server.ask("/change", b"[" * 99_999)
    assert status == 400 and b"nested too deeply" in told
    assert server.ask("/state", Origin="http://[")[0] == 403
    assert server.ask("/rows?rows=a")[0] == 400
    for path in ("/row/", "/thumbnail/", "/evidence/0/", "/changes?since=", "/rows?rows="):
        assert server.ask(path + "9" * 5_000)[0] == 414
        assert server.ask(path + "9" * 3_000)[0] in (200, 404), path
    assert server.json("/rows?rows=-1,99") == []
    for path in ("/row/99", "/thumbnail/99", "/image/99", "/evidence/0/0", "/../label.txt"):
        assert server.ask(path)[0] == 404, path
    for path, option in [
        ("sort=score", b"--model_dir"),
        ("words=a", b"--words"),
        ("similar=0", b"--m"),
    ]:
        status, told, _ = server.ask(f"/find?{path}")
        assert status == 422 and option in told
    status, told, _ = server.ask("/picture", "x", Content_Type="application/octet-stream")
    assert status == 422 and b"--model_dir" in told


def test_faults_and_near_duplicates_are_found_on_demand(server):
    server.json("/job", {"name": "check"})
    wait(lambda: server.json("/state")["jobs"]["check"]["state"] == "done")
    server.json("/job", {"name": "sizes"})
    wait(lambda: server.json("/state")["jobs"]["sizes"]["state"] == "done")
    assert server.json("/row/2")["size"] == [64, 50]
    assert server.rows("below=50") == [0, 1]


@pytest.mark.slow
def test_beyond_loopback_a_token_is_needed_which_a_visit_with_it_brings(folder, tmp_path):
    with studio("--data", folder, "--host=0.0.0.0", "--changes", tmp_path) as server:
        token = server.address.partition("?token=")[2]
        assert len(token) > 20
        for path in ("/", "/state", "/image/0", "/?token=", "/?token=wrong"):
            assert server.ask(path)[0] == 401, path
        status, _, headers = server.ask(f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        cookie = cookie.partition(";")[0]
        assert server.ask("/state", Cookie=cookie)[0] == 200
        assert server.ask("/state", Authorization=f"Bearer {token}")[0] == 200
        # By a foreign name too: a browser sends the token to no other.
        assert server.ask("/state", Cookie=cookie, Host="gpu-box:1")[0] == 200
        assert server.ask("/state", Cookie=cookie, Origin="http://evil.example")[0] == 403


def mend(server, label, values, sent, confirmed):
    """Change one label of all images in turn, until the server is gone."""
    try:
        for number in itertools.count():
            row = number % 7
            new = (values[row] + 2) % 3 - 1
            sent.append((row, new))
            body = {"window": str(label), "cells": [[row, label, values[row], new]]}
            assert server.json("/change", body)["conflicts"] == []
            values[row] = new
            confirmed.append((row, new))
    except (OSError, HTTPException, json.JSONDecodeError):
        return


@pytest.mark.slow
def test_no_confirmed_change_is_lost_when_the_server_is_killed(folder, tmp_path):
    """At ten random moments, while two windows mend as fast as they can."""
    rng, count = random.Random(0), 0
    for kill in range(10):
        changes = tmp_path / str(kill // 5)  # five deaths of one log
        with studio("--data", folder, "--changes", changes) as server:
            cells = server.json("/changes?since=0")["cells"]
            known = {(row, label): value for row, label, value in cells}
            start = len(replay(changes))
            windows = []
            for label in (0, 1):
                values = [known.get((row, label), int(row % 5 == label)) for row in range(7)]
                sent, confirmed = [], []
                thread = threading.Thread(
                    target=mend, args=(server, label, values, sent, confirmed)
                )
                thread.start()
                windows.append((label, thread, sent, confirmed))
            time.sleep(rng.uniform(0.02, 0.3))
            server.kill()
        entries = replay(changes)[start:]
        for label, thread, sent, confirmed in windows:
            thread.join()
            kept = [(row, value) for row, of, value in entries if of == label]
            # What was on its way when the server died may have been kept, too.
            assert kept in (confirmed, sent)
            count += len(confirmed)
    assert count > 100


def replay(changes):
    """Row, label and new value of the log's changes in their order."""
    log = ChangeLog(changes / "changes.jsonl")
    log.close()
    names = [f"images/{name}" for name in (EVIL, *(f"{i}.png" for i in range(1, 7)))]
    return [(names.index(c.image), LABELS.index(c.label), c.new) for c in log.entries]


def test_a_run_is_shown_while_it_writes_and_only_to_its_own_page(tmp_path):
    config = schema.default()
    config.data.source = "digits"
    config.train.epochs = 4
    workdir = tmp_path / "<b>run"
    workdir.mkdir()
    with pytest.raises(WorkdirError, match="is no run"):
        render(workdir)
    (workdir / "config.yaml").write_text(schema.to_yaml(schema.parse(config)))
    assert "Nothing is written yet" in render(workdir)
    lines = [
        {"step": 10, "epoch": 0.5, "loss": 0.7, "images_per_s": 64.0},
        {"step": 20, "epoch": 1, "loss": 0.6, "images_per_s": 32.0},
        {"step": 20, "epoch": 1, "loss": 0.6, "images_per_s": 99999.0},  # no step, no time
        {"step": 20, "epoch": 1, "raw/MultiLabelMAP": 0.25, "ema/MultiLabelMAP": 0.5},
    ]
    lines[3] |= {"raw/loss": 0.8125}  # which runs of before have not
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + '{"step": 30, "epo')
    write_images(workdir, 1)[0].rename(workdir / "predictions.png")
    minutes = round(3 * 20 * config.train.batch_size / 32 / 60)
    with studio("--run", workdir) as server:
        status, content, headers = server.ask("/")
        page = Page(content.decode())
        told = " ".join(page.text.split())
        assert f"Epoch 1.00 of 4, 32 images/s, about {minutes} minutes are left." in told
        assert "0.5000" in page.cells
        assert "0.8125" in page.cells and "validation, raw weights" in told
        assert sum(tag == "polyline" for tag, _ in page.tags) == 4
        # It has stopped early, or that was an earlier leg of a run that goes on.
        for epochs, is_done in ((1, True), (0, False)):
            result = {"done_flag": True, "epochs": epochs}
            (workdir / "train_result.json").write_text(json.dumps(result))
            assert ("images/s: done." in " ".join(render(workdir).split())) == is_done
        assert status == 200 and "script-src 'self';" in headers["content-security-policy"]
        for path in ("/live.css", "/live.js", f"/{page.images[0]}"):
            assert secured(server, path) == 200, path
        assert (secured(server, "/"), secured(server, "/none")) == (200, 404)
        assert server.ask("/", Host="evil.example")[0] == 403
        (workdir / "config.yaml").unlink()
        assert server.ask("/")[0] == 503


def test_a_training_shows_the_first_images_with_what_it_says_of_them(tmp_path):
    folder = write_dataset(tmp_path / "data", val=3)
    (folder / "images" / "00007.png").unlink()
    (folder / "images" / "00007.png").write_text("broken")  # the second; no scores are of it
    source = open_split(schema.Data(dir=str(folder), on_error="skip"), "validation")
    scores, pictures = np.zeros((2, len(LABELS)), np.float32), []
    for threshold in (-1.0, 0.5, None):
        show = current_pictures(2, source, threshold, tmp_path)
        show(scores, scores)
        pictures.append((tmp_path / "predictions.png").read_bytes())
        show(scores + 1, scores)  # too soon
        assert (tmp_path / "predictions.png").read_bytes() == pictures[-1]
    assert len({*pictures}) == 3
