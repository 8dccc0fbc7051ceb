"""The server as a process on loopback: answers, refusals, limits, batches, and its end."""

import argparse
import asyncio
import base64
import html
import http.client
import io
import json
import re
import signal
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from mlcls_jax.config import add_arguments
from mlcls_jax.errors import ConfigError, UserError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from mlcls_jax.serving import Options, options_of, serve
from mlcls_jax.serving.requests import ParsedRequest
from mlcls_jax.serving.schemas import Answer, ClassifyOptions, Status
from mlcls_jax.serving.service import Service
from tests.helpers import bombs
from tests.helpers.bundles import LABELS, write_images, write_small
from tests.helpers.server_process import PATH, start, wait

LOOSE = 2e-5  # scores have five digits, and another batch size another last bit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def bundle(toy, folder):
    return write_small(folder / "bundle", "Toy_ML", size=(64, 96))


@pytest.fixture(scope="module")
def pooling(toy, folder):
    """A bundle whose head does not attend."""
    return write_small(folder / "plain", "Toy", size=(64, 96))


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(read_bundle(bundle), batch_size=4)


@pytest.fixture(scope="module")
def images(folder):
    return [path.read_bytes() for path in write_images(folder / "images", 24)]


@pytest.fixture(scope="module")
def server(bundle, folder):
    """With small limits, warm, and stopped by SIGINT in the end."""
    server = start(bundle, folder / "a", max_batch=4, max_body_mb=1, body_timeout_s=1)
    server.wait_for("/ready", 200)
    yield server
    assert server.stop(signal.SIGINT) == 0


@pytest.fixture(scope="module")
def narrow(bundle, folder):
    """With a short queue and little patience, whose model a test may hold or break."""
    options = {"max_batch": 4, "queue_size": 3, "request_timeout_s": 2, "body_timeout_s": 2}
    options |= {"header_timeout_s": 1, "max_connections": 24}
    others = {"allow_urls": ["127.0.0.1"], "cors": ["https://c.org"]}
    server = start(bundle, folder / "b", **options, **others)
    server.wait_for("/ready", 200)
    yield server
    server.process.kill()
    server.process.wait()


def multipart(image, name="file", **fields):
    parts = [f'name="{k}"\r\n\r\n{v}'.encode() for k, v in fields.items()]
    parts.append(f'name="{name}"; filename="a.png"\r\n\r\n'.encode() + image)
    body = b"".join(b"--xyz\r\nContent-Disposition: form-data; " + p + b"\r\n" for p in parts)
    return body + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def expected(predictor, image, **options):
    pixels = np.array(Image.open(io.BytesIO(image)))
    return next(iter(predictor.predict(pixels, **options)))


def assert_same(result, wanted):
    categories = result["categories"]
    assert [c["id"] for c in categories] == wanted["class_ids"]
    assert [c["name"] for c in categories] == wanted["label_names"]
    np.testing.assert_allclose([c["score"] for c in categories], wanted["scores"], atol=LOOSE)


def numbers(server):
    """The metrics: by name, and by name and label."""
    status, text, _ = server.ask(path="/metrics")
    assert status == 200
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def png_of_zeros(side):
    """A grey PNG of one bit a pixel; its compressed rows are all alike."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer, row = zlib.compressobj(), bytes(1 + (side + 7) // 8)
    rows = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def base64_of(image):
    return base64.b64encode(image).decode()


def test_every_form_of_request_gets_the_predictors_answer(server, predictor, images):
    for image in images[:3]:
        wanted = expected(predictor, image)
        lines = base64.encodebytes(image).decode()
        uri = f"data:image/png;base64,{base64_of(image)}"
        forms = [
            ({"image": base64_of(image)}, "application/json"),
            ({"image": uri, "threshold": None, "visualize": False}, "application/json"),
            ({"image": lines}, "application/json; charset=utf-8"),
            multipart(image),
            multipart(image, "image", threshold="0.5", visualize="false"),
            (image, "image/png"),
        ]
        for body, kind in forms:
            status, answer, _ = server.ask(body, kind)
            assert status == 200, answer
            assert_same(answer["result"], wanted)
            assert answer["result"]["image"] is None
            assert all(set(c) == {"id", "name", "score"} for c in answer["result"]["categories"])


def test_several_images_of_a_request_are_answered_in_their_order(server, predictor, images):
    form, kind = multipart(images[0])
    second = multipart(images[1])[0]
    forms = [
        ({"images": [base64_of(image) for image in images[:2]]}, "application/json", 2),
        ({"images": [base64_of(images[0])], "threshold": None}, "application/json", 1),
        (form.removesuffix(b"--xyz--\r\n") + second, kind, 2),
    ]
    for body, kind, count in forms:
        status, answer, _ = server.ask(body, kind)
        assert status == 200, answer
        results = answer["result"]["images"]
        assert len(results) == count
        for result, image in zip(results, images, strict=False):
            assert_same(result, expected(predictor, image))


@pytest.mark.parametrize(
    "threshold",
    [0, 0.0, 0.45, 1, [0.1, 0.9, 0.45, 0.5, 0.0], {"猫": 0.1, "1": 0.9, "default": 0.45}, {}],
    ids=str,
)
def test_thresholds_of_all_kinds_are_the_predictors(server, predictor, images, threshold):
    wanted = expected(predictor, images[0], threshold=threshold)
    assert_same(server.classify(images[0], threshold=threshold), wanted)
    text = json.dumps(threshold)
    for body, kind, path in [
        (*multipart(images[0], threshold=text), PATH),
        (images[0], "image/png", f"{PATH}?threshold={quote(text)}"),
    ]:
        status, answer, _ = server.ask(body, kind, path=path)
        assert status == 200, answer
        assert_same(answer["result"], wanted)


def test_explained_labels_have_the_evidence_of_predict(server, predictor, images):
    wanted = expected(predictor, images[1], threshold=0.0, explain=True)
    result = server.classify(images[1], threshold=0.0, explain=True)
    assert_same(result, wanted)
    assert np.shape(wanted["evidence"]) == (len(LABELS), 4, 6)
    seen = [c["evidence"] for c in result["categories"]]
    np.testing.assert_allclose(seen, wanted["evidence"], atol=LOOSE)


def test_a_visualized_answer_holds_the_picture_with_its_labels(server, predictor, images):
    picture = server.classify(images[1], threshold=0.1, visualize=True)["image"]
    picture = Image.open(io.BytesIO(base64.b64decode(picture)))
    wanted = expected(predictor, images[1], threshold=0.1).img["res"]
    assert (picture.format, picture.size) == ("JPEG", wanted.size)
    difference = np.asarray(picture, float) - np.asarray(wanted, float)
    assert np.abs(difference).mean() < 4
    large = Image.new("RGB", (3000, 1500), "green")
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    drawn = server.classify(buffer.getvalue(), visualize=True)["image"]
    assert Image.open(io.BytesIO(base64.b64decode(drawn))).width == 2048


SMALL = base64_of(b"not an image")
BAD = {
    "no image": ({}, "image: Field required"),
    "image is a number": ({"image": 3}, "image: "),
    "image is null": ({"image": None}, "image: "),
    "image is empty": ({"image": ""}, "empty"),
    "not base64": ({"image": "*#!"}, "base64"),
    "cut base64": ({"image": "abcde"}, "base64"),
    "odd data URI": ({"image": "data:image/png,abc"}, "base64"),
    "text": ({"image": SMALL}, "not an image"),
    "visualize is text": ({"image": SMALL, "visualize": "yes"}, "visualize"),
    "explain is a number": ({"image": SMALL, "explain": 2}, "explain"),
    "misspelt": ({"image": SMALL, "treshold": 0.5}, "treshold"),
    "threshold too high": ({"image": SMALL, "threshold": 1.5}, "0 to 1"),
    "threshold is text": ({"image": SMALL, "threshold": "0.5"}, "threshold"),
    "threshold is true": ({"image": SMALL, "threshold": True}, "threshold"),
    "too few thresholds": ({"image": SMALL, "threshold": [0.5]}, "1 numbers"),
    "odd thresholds": ({"image": SMALL, "threshold": ["a"] * 5}, "threshold"),
    "nested thresholds": ({"image": SMALL, "threshold": [[0.5], 1, 1, 1, 1]}, "threshold"),
    "unknown label": ({"image": SMALL, "threshold": {"catt": 0.5}}, "did you mean 'cat'"),
    "odd threshold of a label": ({"image": SMALL, "threshold": {"cat": None}}, "threshold"),
    "odd default": ({"image": SMALL, "threshold": {"default": "x"}}, "threshold"),
    "NaN": (b'{"image": "", "threshold": NaN}', "threshold"),
    "not JSON": (b"{", "body"),
    "a list": ([], "body"),
    "not UTF-8": (b"\xff\xfe", "body"),
    "deep": (b'{"image": "", "threshold": ' + b"[" * 100_000, "body"),
    "no images": ({"images": []}, "0 images; a request has 1 to 64"),
    "too many images": ({"images": [SMALL] * 65}, "65 images"),
    "images are no list": ({"images": SMALL}, "images: "),
    "image and images": ({"images": [SMALL], "image": SMALL}, "image: no such field"),
    "one of several is broken": ({"images": [SMALL, SMALL]}, "of 2: "),
    "a URL": ({"image": "http://example.org/a.png"}, "--allow_urls"),
    "a URL in capitals": ({"image": "HTTPS://example.org/a.png"}, "--allow_urls"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_question_is_told_what_is_wrong_with_it(server, name):
    body, fragment = BAD[name]
    status, answer, _ = server.ask(body)
    assert status == 422, answer
    assert set(answer) == {"logId", "errorCode", "errorMsg"}
    assert answer["errorCode"] == 422
    assert fragment in answer["errorMsg"]


LONG = b"a" * 3_000_000


def json_with(threshold: bytes) -> bytes:
    return b'{"image": "", "threshold": ' + threshold + b"}"


def many_keys(count: int) -> bytes:
    return b",".join(b'"%d":0' % i for i in range(count))


def form_of(*parts: bytes) -> bytes:
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + b"--xyz--\r\n"


FIELD = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b'
FORM = "multipart/form-data; boundary=xyz"
HOSTILE = {
    "unknown keys": (b'{"image": "",' + many_keys(300_000) + b"}", "besides the image"),
    "a long key": (b'{"image": "", "' + LONG + b'": 1}', "is not at image"),
    "a long key of a threshold": (json_with(b'{"' + LONG + b'": 1}'), "is not at image"),
    "two long texts": (b'{"image": "' + LONG + b'", "x": "' + LONG + b'"}', "is not at image"),
    "a long list": (json_with(b"[" + b"0," * 1_000_000 + b"0]"), "besides the image"),
    "a key of many digits": (json_with(b'{"' + b"9" * 4000 + b'": 1}'), "threshold has the key"),
    "a number of many digits": (json_with(b"9" * 5000), "threshold is inf"),
    "more thresholds than labels": (json_with(b"{" + many_keys(500) + b"}"), "500 entries"),
    "nested": (json_with(b"[" * 4000 + b"]" * 4000), ""),
    "many escapes": (b'{"image": "' + b"\\u0041" * 500_000 + b'\\"}', "besides the image"),
    "many quotes": (b'{"image": "' + b'\\"' * 1_000_000 + b'"}', "besides the image"),
    "no end": (b'{"image": "' + LONG, "body: "),
    "spaces": (b'{"image": "' + b"A " * 1_500_000 + b'A"}', "base64"),
    "a long URL": (b'{"image": "http://127.0.0.1/' + LONG + b'"}', "URL"),
    "a data URI without an end": (b'{"image": "data:' + LONG + b'"}', "data: URI"),
    "letters outside base64": (b'{"image": "' + "é".encode() * 1_000_000 + b'"}', "'é'"),
    "many parts": (form_of(*[FIELD % (b"a", b"1")] * 50_000), "fields", FORM),
    "a long field": (
        form_of(FIELD % (b"file", b"AA"), FIELD % (b"threshold", LONG)),
        "threshold: has",
        FORM,
    ),
    "a long field name": (form_of(FIELD % (LONG, b"1")), "multipart", FORM),
    "many headers": (form_of(b"a: b\r\n" * 500_000 + FIELD % (b"a", b"1")), "multipart", FORM),
    "a form without lines": (b"--xyz" * 500_000, "multipart", FORM),
    "a long boundary": (form_of(FIELD % (b"a", b"1")), "Content-Type", FORM + "x" * 10_000),
    "a long kind": (b"", "Content-Type", "x/" + "y" * 10_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_sent_in_bulk_is_refused_in_few_words_and_stops_nobody(narrow, name):
    body, fragment, *kind = HOSTILE[name]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(narrow.ask, body, *kind)
        slowest = 0.0
        while not asked.done():
            began = time.monotonic()
            assert narrow.ask(path="/health")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
    status, answer, _ = asked.result()
    assert status == 422, answer
    assert fragment in answer["errorMsg"]
    assert len(answer["errorMsg"]) <= 1000
    assert slowest < 5


@pytest.mark.parametrize("charset", ["idna", "undefined", "punycode", "utf-16", "no-such"])
def test_fields_of_a_form_are_utf8_whatever_its_charset_says(server, predictor, images, charset):
    body, kind = multipart(images[0], threshold='{"猫": 0.1, "default": 0.9}')
    status, answer, _ = server.ask(body, f"{kind}; charset={charset}")
    assert status == 200, answer
    wanted = expected(predictor, images[0], threshold={"猫": 0.1, "default": 0.9})
    assert_same(answer["result"], wanted)
    status, answer, _ = server.ask(
        form_of(FIELD % (b"file", b"AA"), FIELD % (b"threshold", b"\xff")), FORM
    )
    assert (status, answer["errorMsg"]) == (422, "threshold: not UTF-8")


@pytest.mark.parametrize(
    "query", ["&".join(f"a{i}=1" for i in range(2000)), "threshold=" + "9" * 9000]
)
def test_long_queries_are_refused_in_few_words(server, images, query):
    status, answer, _ = server.ask(images[0], "image/png", path=f"{PATH}?{query}")
    assert status == 422
    assert len(answer["errorMsg"]) < 300


def test_base64_may_lack_its_padding_and_be_url_safe(server, predictor, images):
    image = images[0] + bytes((-len(images[0]) + 1) % 3)
    text = base64_of(image)
    assert text.endswith("==") and ("+" in text or "/" in text)
    safe = text.translate(str.maketrans("+/", "-_"))
    wanted = expected(predictor, images[0])
    escaped = b'{"image": "' + text.replace("/", "\\/").encode() + b'"}'  # as PHP writes it
    for body in ({"image": text.rstrip("=")}, {"image": safe}, {"image": safe[:-1]}, escaped):
        status, answer, _ = server.ask(body)
        assert status == 200, answer
        assert_same(answer["result"], wanted)


def test_options_of_forms_and_queries_may_be_pythons_or_left_empty(server, predictor, images):
    wanted = expected(predictor, images[0])
    for options, is_drawn in [
        ({"visualize": "True", "threshold": ".5"}, True),
        ({"visualize": "False", "threshold": ""}, False),
        ({"visualize": "", "explain": "None", "threshold": "null"}, False),
    ]:
        query = "&".join(f"{k}={v}" for k, v in options.items())
        for body, kind, path in [
            (*multipart(images[0], **options), PATH),
            (images[0], "image/png", f"{PATH}?{query}"),
        ]:
            status, answer, _ = server.ask(body, kind, path=path)
            assert status == 200, answer
            assert_same(answer["result"], wanted)
            assert (answer["result"]["image"] is not None) == is_drawn


def test_head_is_answered_where_get_is(server):
    for path, status in [("/", 200), ("/health", 200), ("/ready", 200), (PATH, 405), ("/no", 404)]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        connection.close()


@pytest.mark.slow
def test_connections_that_do_not_go_on_are_closed(narrow):
    """Without headers, with half of them, after an answer, and with an answer nobody reads."""
    slow_body = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf"
    for sent in (b"", b"GET /health HTTP/1.1\r\nHost", b"GET /health HTTP/1.1\r\n\r\n", slow_body):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as connection:
            connection.sendall(sent)
            while connection.recv(10_000):
                pass  # until the server closes


def test_connections_above_the_limit_are_told_so_but_for_probes(narrow):
    idle = []
    try:
        for _ in range(narrow_connections := 24):
            idle.append(socket.create_connection(("127.0.0.1", narrow.port), timeout=60))
        time.sleep(0.2)
        assert len(idle) == narrow_connections
        status, answer, headers = narrow.ask({"image": SMALL})
        assert (status, answer["errorCode"]) == (503, 503), answer
        assert "connections" in answer["errorMsg"]
        assert (headers["connection"], int(headers["retry-after"]) >= 1) == ("close", True)
        assert narrow.ask(path="/health")[0] == 200
    finally:
        for connection in idle:
            connection.close()
    wait(lambda: narrow.ask({"image": SMALL})[0] == 422)


def test_bad_uploads_are_told_what_is_wrong_with_them(server, images):
    form, kind = multipart(images[0])
    for body, content_type, path, fragment in [
        (form[: len(form) // 2], kind, PATH, "multipart"),
        (form, "multipart/form-data", PATH, "boundary"),
        (*multipart(images[0], "picture"), PATH, "no file"),
        (*multipart(images[0], threshold="high"), PATH, "threshold"),
        (*multipart(images[0], size="3"), PATH, "size"),
        (*multipart(b"not an image"), PATH, "not an image"),
        (images[0][:200], "image/png", PATH, "image"),
        (images[0], "image/png", PATH + "?explain=maybe", "explain"),
        (images[0], "text/plain", PATH, "Content-Type"),
    ]:
        status, answer, _ = server.ask(body, content_type, path=path)
        assert status == 422, (fragment, answer)
        assert fragment in answer["errorMsg"]


def test_other_paths_and_methods_have_the_same_shape(server):
    for path, body, status in [("/nowhere", None, 404), (PATH, None, 405), ("/health", {}, 405)]:
        got, answer, _ = server.ask(body, path=path)
        assert (got, answer["errorCode"]) == (status, status)
        assert set(answer) == {"logId", "errorCode", "errorMsg"}
    status, answer, _ = server.ask(path="/health")
    assert status == 200
    healthy = {"errorCode": 0, "errorMsg": "Healthy", "status": "UP"}
    assert {**answer, "logId": ""} == {"logId": "", **healthy}


def half_sent(server, length: int):
    """What a request is answered that says so many bytes, sends four, and waits."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\nhalf".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())


def test_what_is_known_to_be_too_large_is_so_however_slowly_it_arrives(server):
    status, answer = half_sent(server, 50_000_000)
    assert (status, answer["errorCode"]) == (413, 413), answer


def test_bad_requests_do_not_disturb_good_ones(server, predictor, images):
    bomb = png_of_zeros(30_000)
    bad = {
        408: lambda _: half_sent(server, 9999),
        413: lambda _: server.ask(b"x" * 50_000_000, "image/png")[:2],
        422: lambda i: server.ask(
            *[(bomb, "image/png"), ({"image": "*#!"},), (b"some text", "image/png")][i % 3]
        )[:2],
    }
    before = numbers(server)
    wanted = [expected(predictor, image, threshold=0.0) for image in images]
    with ThreadPoolExecutor(9) as troublemakers, ThreadPoolExecutor(8) as askers:
        trouble = {s: [troublemakers.submit(bad[s], i) for i in range(6)] for s in bad}
        good = [
            askers.submit(server.classify, images[i % len(images)], threshold=0.0)
            for i in range(5 * len(images))
        ]
        for i, future in enumerate(good):
            assert_same(future.result(), wanted[i % len(images)])
        for status, futures in trouble.items():
            for future in futures:
                got, answer = future.result()
                assert (got, answer["errorCode"]) == (status, status), answer
    after = numbers(server)
    assert after["mlcls_requests_total", "200"] - before["mlcls_requests_total", "200"] >= 120
    assert ("mlcls_requests_total", "500") not in after
    grown = after[("process_resident_memory_bytes",)] - before[("process_resident_memory_bytes",)]
    assert grown < 300e6  # 30,000 x 30,000 pixels are 2,700e6 bytes


def test_pictures_made_to_be_slow_get_504_and_keep_no_other_waiting(narrow, predictor, images):
    slow = bombs.jpeg_scans(250, 6000)  # 20 s of processor time
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(narrow.ask, slow, "image/jpeg") for _ in range(2)]
        for image in images[:5]:
            assert_same(narrow.classify(image), expected(predictor, image))
        assert [future.result()[0] for future in asked] == [504, 504]
    assert_same(narrow.classify(images[5]), expected(predictor, images[5]))


def test_who_was_told_to_continue_can_read_that_it_is_too_much(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        head += "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        for _ in range(100):
            connection.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["errorCode"]) == (413, 413)


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    chunks = (b"x" * 100_000 for _ in range(30))
    connection.request("POST", PATH, chunks, {"Content-Type": "image/png"}, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["errorCode"]) == (413, 413)
    connection.close()


def test_each_of_many_askers_gets_its_own_answer_from_shared_batches(server, predictor, images):
    wanted = [expected(predictor, image, threshold=0.0) for image in images]
    scores = np.array([sorted(zip(w["class_ids"], w["scores"], strict=True)) for w in wanted])
    apart = np.abs(scores[:, None, :, 1] - scores[None, :, :, 1]).max(-1)
    assert apart[np.triu_indices(len(images), 1)].min() > 10 * LOOSE  # no answer fits another image
    before = numbers(server)
    turns = [
        (i, explain) for _ in range(5) for i in range(len(images)) for explain in (False, True)
    ]
    with ThreadPoolExecutor(16) as pool:
        results = pool.map(
            lambda turn: server.classify(images[turn[0]], threshold=0.0, explain=turn[1]), turns
        )
        for (i, explain), result in zip(turns, results, strict=True):
            assert_same(result, wanted[i])
            assert ("evidence" in result["categories"][0]) == explain
    after = numbers(server)
    computed, batches = (
        after[(name,)] - before[(name,)]
        for name in ("mlcls_images_total", "mlcls_batch_size_count")
    )
    assert computed == len(turns)
    assert batches < computed


def test_metrics_are_consistent(server, images):
    server.classify(images[0])
    found = numbers(server)
    assert found[("mlcls_queue_length",)] == 0
    assert found[("mlcls_images_total",)] == found[("mlcls_batch_size_sum",)]
    assert found["mlcls_phase_seconds_count", "queue"] == found[("mlcls_images_total",)]
    assert found["mlcls_phase_seconds_count", "compute"] == found[("mlcls_batch_size_count",)]
    assert found["mlcls_phase_seconds_count", "decode"] >= found[("mlcls_images_total",)]
    assert found["mlcls_batch_size_bucket", "4.0"] == found[("mlcls_batch_size_count",)]
    # This request is counted after its answer is written.
    assert found[("mlcls_request_seconds_count",)] <= found["mlcls_requests_total", "200"]


def test_pages_take_nothing_from_outside(server):
    for path in ("/", "/docs"):
        status, page, headers = server.ask(path=path)
        page = page.decode()
        assert status == 200
        assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "unsafe" not in policy
    assert "access-control-allow-origin" not in headers
    status, schema, _ = server.ask(path="/openapi.json")
    body = schema["paths"][PATH]["post"]["requestBody"]["content"]
    assert {"image", "images", "threshold", "visualize", "explain"} == set(
        body["application/json"]["schema"]["properties"]
    )
    assert "/ready" in page


def test_answers_are_those_of_the_description_whose_examples_work(server):
    schema = server.ask(path="/openapi.json")[1]
    described = schema["paths"][PATH]["post"]
    kind, content = next(iter(described["requestBody"]["content"].items()))
    assert kind == "application/json" and next(iter(content["schema"]["properties"])) == "image"
    category = schema["components"]["schemas"]["Category"]
    assert set(category["properties"]) - set(category["required"]) == {"evidence"}
    for options in ({}, {"visualize": True, "explain": True, "threshold": 0.0}):
        status, answer, _ = server.ask(content["example"] | options)
        assert status == 200
        assert Answer.model_validate(answer, strict=True).model_dump() == answer
    status, answer, _ = server.ask({})
    assert Status.model_validate(answer, strict=True).model_dump() == answer
    page = html.unescape(server.ask(path="/docs")[1].decode())
    assert f"curl http://127.0.0.1:{server.port}{PATH} -H 'Content-Type: {kind}'" in page
    assert content["example"]["image"] in page
    assert page.index("<code>image</code>") < page.index("<code>threshold</code>")


def hold(server):
    """Stop the device in the next batch."""
    (server.switches / "held").unlink(missing_ok=True)
    (server.switches / "hold").touch()


def wait_held(server):
    wait((server.switches / "held").exists)


def release(server):
    (server.switches / "hold").unlink()


def test_a_full_queue_answers_503_and_loses_nothing(narrow, predictor, images):
    hold(narrow)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(narrow.ask, {"image": base64_of(image)}) for image in images[:8]]
        wait(lambda: sum(future.done() for future in asked) == 5)
        release(narrow)
        answers = [future.result() for future in asked]
    assert sorted(status for status, *_ in answers) == [200] * 3 + [503] * 5
    for (status, answer, headers), image in zip(answers, images, strict=False):
        if status == 200:
            assert_same(answer["result"], expected(predictor, image))
        else:
            assert answer["errorCode"] == 503
            assert "queue is full" in answer["errorMsg"]
            assert int(headers["retry-after"]) >= 1


def test_what_nobody_waits_for_is_not_computed(narrow, images):
    narrow.classify(images[0])
    before = numbers(narrow)[("mlcls_images_total",)]
    hold(narrow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(narrow.ask, images[0], "image/png")
        wait_held(narrow)
        second = pool.submit(narrow.ask, images[1], "image/png")
        with socket.create_connection(("127.0.0.1", narrow.port)) as leaver:
            head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            length = f"Content-Length: {len(images[2])}\r\n\r\n"
            leaver.sendall((head + length).encode() + images[2])
            wait(lambda: numbers(narrow)[("mlcls_queue_length",)] == 2)
        for future in (first, second):
            status, answer, _ = future.result()
            assert (status, answer["errorCode"]) == (504, 504)
    wait(lambda: ("mlcls_requests_total", "499") in numbers(narrow))
    release(narrow)
    narrow.classify(images[3])
    # The first was with the device already, and the last is the one after.
    assert numbers(narrow)[("mlcls_images_total",)] == before + 2


@pytest.mark.parametrize("fault", ["fail", "exit"])
def test_a_broken_batch_is_answered_and_the_server_goes_on(narrow, predictor, images, fault):
    (narrow.switches / fault).touch()
    status, answer, _ = narrow.ask({"image": base64_of(images[0])})
    assert (status, answer["errorCode"]) == (500, 500)
    assert "secret" not in json.dumps(answer)
    for image in images[:3]:
        assert_same(narrow.classify(image), expected(predictor, image))


@pytest.mark.parametrize(
    ("url", "fragment"),
    [("http://127.0.0.1:1/a.png", "127.0.0.1"), ("http://example.org/a.png", "example.org")],
)
def test_allowed_hosts_are_no_way_into_private_networks(narrow, url, fragment):
    status, answer, _ = narrow.ask({"image": url})
    assert status == 422
    assert fragment in answer["errorMsg"]
    assert "refused" not in answer["errorMsg"]  # nobody tried to connect


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://c.org", "https://c.org"), ("https://d.org", None)]
)
def test_pages_of_other_origins_may_ask_where_allowed(narrow, origin, allowed):
    _, _, headers = narrow.ask({}, Origin=origin)
    assert headers.get("access-control-allow-origin") == allowed


def test_heads_without_attention_are_explained_by_masking_within_a_limit(pooling, images):
    plain = Predictor(read_bundle(pooling), batch_size=8)
    service = Service(plain, Options(max_batch=8, max_masked=1, decoders=1))
    assert service.can_explain

    async def ask(count, *, at_once=1):
        request = ParsedRequest(
            tuple(images[:count]), ClassifyOptions(threshold=0.0, explain=True), is_list=count > 1
        )
        asked = [service.answer(request, asyncio.Event().wait) for _ in range(at_once)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, refused = asyncio.run(ask(1, at_once=2))
    wanted = expected(plain, images[0], threshold=0.0, explain=True)
    found = [category["evidence"] for category in first.categories]
    np.testing.assert_allclose(found, wanted["evidence"], atol=1e-3)
    assert (refused.status_code, refused.headers) == (503, {"Retry-After": "1"})
    (many,) = asyncio.run(ask(2))
    assert many.status_code == 422
    assert many.detail.endswith("does not attend; images masked at the same time: at most 1 here")
    (after,) = asyncio.run(ask(1))
    assert after == first
    service.close()


def test_an_explanation_that_nobody_waits_for_is_not_computed_to_its_end(pooling, images):
    plain = Predictor(read_bundle(pooling), batch_size=1)
    service = Service(plain, Options(max_batch=1, decoders=1))
    seen, run = [], plain.run

    async def ask():
        gone, loop = asyncio.Event(), asyncio.get_running_loop()

        def counted(pictures):
            seen.append(len(pictures))
            if len(seen) == 3:
                loop.call_soon_threadsafe(gone.set)
            return run(pictures)

        plain.run = counted
        request = ParsedRequest((images[0],), ClassifyOptions(explain=True))
        with pytest.raises(HTTPException) as refusal:
            await service.answer(request, gone.wait)
        assert refusal.value.status_code == 499

    asyncio.run(ask())
    service.close()
    assert sum(seen) < 20


@pytest.mark.slow
def test_accepted_requests_are_answered_after_sigterm(bundle, folder, predictor, images):
    switches = folder / "c"
    switches.mkdir()
    (switches / "hold").touch()
    server = start(bundle, switches, max_batch=4)
    try:
        wait_held(server)  # the warm-up
        assert server.ask(path="/health")[0] == 200
        for status, answer, headers in (server.ask(path="/ready"), server.ask({"image": SMALL})):
            assert (status, answer["errorCode"]) == (503, 503)
            assert int(headers["retry-after"]) >= 1
        release(server)
        server.wait_for("/ready", 200)

        hold(server)
        with ThreadPoolExecutor(6) as pool:
            due = [pool.submit(server.classify, image) for image in images[:6]]
            wait_held(server)
            wait(lambda: numbers(server)[("mlcls_queue_length",)] >= 2)
            # All six have been accepted once their bodies are decoded.
            wait(lambda: numbers(server)["mlcls_phase_seconds_count", "decode"] == 6)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("/ready", 503)
            status, answer, headers = server.ask({"image": base64_of(images[6])})
            assert (status, answer["errorCode"]) == (503, 503)
            assert int(headers["retry-after"]) >= 1
            release(server)
            for future, image in zip(due, images, strict=False):
                assert_same(future.result(), expected(predictor, image))
        assert server.process.wait(60) == 0
    finally:
        server.process.kill()


@pytest.mark.slow
def test_a_server_that_cannot_answer_still_ends_in_time(bundle, folder, images):
    server = start(bundle, folder / "d", max_batch=1, drain_timeout_s=1)
    try:
        server.wait_for("/ready", 200)
        hold(server)
        with ThreadPoolExecutor(2) as pool:
            slow = bombs.jpeg_scans(250, 6000)  # 20 s of processor time
            due = [
                pool.submit(server.ask, slow, "image/jpeg"),
                pool.submit(server.ask, images[0], "image/png"),
            ]
            wait_held(server)
            assert server.stop() == 0
            for future in due:
                status, answer, _ = future.result()
                assert (status, answer["errorCode"]) == (503, 503)
    finally:
        server.process.kill()


def test_a_port_that_is_taken_is_named(predictor):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: cannot listen"):
            serve(predictor, Options(port=port))


def test_options_are_checked_and_read_from_arguments():
    with pytest.raises(ConfigError, match="max_batch=0: must be at least 1"):
        Options(max_batch=0)
    with pytest.raises(ConfigError, match="port=70000: must be from 0 to 65535"):
        Options(port=70000)
    parser = argparse.ArgumentParser()
    add_arguments(parser, Options)
    assert options_of(parser.parse_args([])) == Options()
    text = "--port 0 --max_wait_ms 2.5 --allow_urls a.org *.b.org --cors https://c.org"
    wanted = Options(
        port=0, max_wait_ms=2.5, allow_urls=("a.org", "*.b.org"), cors=("https://c.org",)
    )
    assert options_of(parser.parse_args(text.split())) == wanted
    assert "--max_pixels" in parser.format_help()
