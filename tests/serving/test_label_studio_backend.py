"""The server as Label Studio's machine learning backend, by requests as Label Studio sends them.

After its `ml/api_connector.py` (1.13 to 1.20): /health, /setup, /predict and /webhook.
"""

import base64
import json
import shutil

import pytest

from mlcls_jax.data.convert.label_studio import TASKS, interface, write_tasks
from mlcls_jax.data.convert.labelled import Picture
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.predictor import Predictor
from tests.helpers.bundles import LABELS, write_images, write_small
from tests.helpers.server_process import start

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, a bundle, and tasks about them as our writer writes them."""
    place = tmp_path_factory.mktemp("label_studio")
    paths = write_images(place / "root/mine/images", 3)
    shutil.move(paths[2], place / "root/mine/images/a b&c.png")
    (place / "secret.png").write_bytes(paths[0].read_bytes())
    names = ("00.png", "01.png", "a b&c.png")
    pictures = [Picture(f"images/{n}", place / "root/mine/images" / n) for n in names]
    write_tasks(place, LABELS, pictures, url="/data/local-files/?d=mine/")
    return place


@pytest.fixture(scope="module")
def server(toy, place):
    bundle = write_small(place / "bundle", "Toy_ML", threshold=0.01)
    folder = str(place / "root")
    server = start(bundle, place / "on", max_batch=2, label_studio=folder, api_key="k:ey")
    server.wait_for("/ready", 200)
    yield server
    assert server.stop() == 0


KEY = "Basic " + base64.b64encode(b"label studio:k:ey").decode()


def ask(server, path, body):
    return server.ask(body, path=path, Authorization=KEY)[:2]


def request(tasks, config=None):
    """The body of /predict."""
    params = {"login": None, "password": None, "context": None}
    shared = {"project": "3.1700000000", "params": params}
    return {"tasks": tasks, "label_config": config or interface(LABELS), **shared}


def test_tasks_get_predictions_that_are_those_of_the_model(server, place):
    status, answer = server.ask(path="/health")[:2]
    assert (status, answer["status"]) == (200, "UP")
    given = {"project": "3.17", "schema": interface(LABELS), "hostname": "http://localhost:8080"}
    given |= {"access_token": "t", "extra_params": None}
    assert ask(server, "/setup", given) == (200, {"model_version": "Toy_ML"})
    tasks = json.loads((place / TASKS).read_text())
    data = (place / "root/mine/images/00.png").read_bytes()
    inline = {"data": {"image": "data:image/png;base64," + base64.b64encode(data).decode()}}
    tasks = [{"id": n, **task} for n, task in enumerate([*tasks, inline])]
    status, answer = ask(server, "/predict", request(tasks))
    assert status == 200 and answer["model_version"] == "Toy_ML"
    predictor = Predictor(read_bundle(place / "bundle"), batch_size=1)
    names = ("00.png", "01.png", "a b&c.png", "00.png")
    wanted = list(predictor.predict([place / "root/mine/images" / name for name in names]))
    assert any(result["label_names"] for result in wanted)
    for found, result in zip(answer["results"], wanted, strict=True):
        (said,) = found["result"]
        assert (said["from_name"], said["to_name"], said["type"]) == ("labels", "image", "choices")
        assert said["value"] == {"choices": result["label_names"]}
        assert found["score"] == pytest.approx(min(result["scores"]), abs=1e-4)
    assert ask(server, "/webhook", {"action": "ANNOTATION_CREATED"}) == (201, {})
    assert ask(server, "/predict", request([]))[1]["results"] == []


def test_choices_are_those_of_the_interface(server, place):
    config = (
        '<View><Image name="img" value="$photo"/><Header value="h"/>'
        f'<Choices name="kind" toName="img"><Choice value="other"/><Choice value="{LABELS[0]}x"'
        f' alias="{LABELS[0].upper()}"/></Choices></View>'
    )
    task = {"data": {"photo": "/data/local-files/?d=mine/images/00.png"}}
    status, answer = ask(server, "/predict", request([task], config))
    assert status == 200
    for said in answer["results"][0]["result"]:
        assert (said["from_name"], said["to_name"]) == ("kind", "img")
        assert said["value"]["choices"] == [LABELS[0].upper()]


@pytest.mark.parametrize(
    "image",
    [
        "/data/local-files/?d=../secret.png",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=mine/images/%2e%2e/%2e%2e/%2e%2e/secret.png",
        "/data/upload/1/none.png",
        "/data/local-files/?d=mine",
        "http://127.0.0.1:1/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "a\0.png",
        "//[a.png",
    ],
)
def test_nothing_is_read_but_images_in_the_folder(server, image):
    status, answer = ask(server, "/predict", request([{"data": {"image": image}}]))
    assert status == 422 and answer["errorCode"] == 422
    right = {"data": {"image": "/data/local-files/?d=mine/images/00.png"}}
    status, answer = ask(server, "/predict", request([{"data": {"image": image}}, right]))
    assert status == 200  # a task that fails does not take the others along
    assert answer["results"][0] == {"model_version": "Toy_ML", "score": 0.0, "result": []}
    assert answer["results"][1]["result"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/predict", b"{", "body:1: is not JSON"),
        ("/predict", b"[]", "must be a JSON object"),
        ("/predict", b'{"a":' * 9999, "nested too deeply"),
        ("/predict", {"tasks": 3}, "tasks: must be a list"),
        ("/predict", request([{}] * 300), "300 tasks: more than"),
        ("/predict", request([7]), "data has no text at"),
        ("/predict", {"tasks": []}, "interface is missing"),
        ("/setup", {"schema": "<View>"}, "label_config:1: is not XML"),
        ("/setup", {"schema": '<!DOCTYPE a [<!ENTITY b "c">]><a/>'}, "has a DOCTYPE"),
        ("/setup", {"schema": "<View/>"}, "has no <Choices> with an <Image>"),
        (
            "/setup",
            {"schema": interface(["no", "yes"])},
            "none of the choices 'no, yes' is a label",
        ),
    ],
)
def test_what_is_wrong_with_a_request_is_told(server, path, body, message):
    status, answer = ask(server, path, body)
    assert status == 422 and message in answer["errorMsg"]


def test_without_the_key_nothing_but_probes_is_answered(server):
    for headers in ({}, {"Authorization": "Basic !"}, {"Authorization": "Basic azp4"}):
        assert server.ask(request([]), path="/predict", **headers)[0] == 401
    for path, status in [("/health", 200), ("/", 200), ("/metrics", 401), ("/settings", 401)]:
        assert server.ask(path=path)[0] == status
    assert server.ask({"image": "AAAA"})[0] == 401
    for key in ({"Authorization": "Bearer k:ey"}, {"X-API-Key": "k:ey"}):
        assert server.ask({"image": "AAAA"}, **key)[0] == 422
        assert server.ask(path="/metrics", **key)[0] == 200
    assert server.ask(path="/metrics", Authorization="Bearer other")[0] == 401
