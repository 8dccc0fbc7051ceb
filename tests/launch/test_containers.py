"""The files of launch/containers: what they say of the server and the package is true."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.parser import text_string_to_metric_families

from mlcls_jax.commands.predict import _parse
from mlcls_jax.serving.app import _probes
from mlcls_jax.serving.monitor import Monitor
from mlcls_jax.serving.options import API_KEY
from tests.helpers.tiers import need

REPOSITORY = Path(__file__).parents[2]
CONTAINERS = REPOSITORY / "launch" / "containers"
DOCKERFILE = (CONTAINERS / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((CONTAINERS / "compose.yaml").read_text(encoding="utf-8"))
DEPLOYMENT, SERVICE, AUTOSCALER = yaml.safe_load_all(
    (CONTAINERS / "kubernetes.yaml").read_text(encoding="utf-8")
)
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = {route.path for route in _probes(None).routes}


def stage(name):
    """The instructions of a stage, each in one line."""
    text = DOCKERFILE.replace("\\\n", " ")
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM|\Z)", text, re.DOTALL | re.MULTILINE)
    return [line for line in found[1].splitlines() if line and not line.startswith("#")]


def one(name, instruction):
    (line,) = [line for line in stage(name) if line.startswith(f"{instruction} ")]
    return line.removeprefix(instruction).strip()


def server_of(command):
    """The server's options of a whole command line after `mlcls`, by the server's own parser."""
    word, *flags = command
    assert word == "serve"
    model, options = _parse(["--serve", *flags])
    assert model.model_dir == "/model"
    return options


def metrics_of_the_server():
    monitor = Monitor()
    monitor.requests.labels("200").inc()
    families = text_string_to_metric_families(monitor.text().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_the_server_image_is_not_root_and_starts_what_the_server_takes():
    options = server_of(json.loads(one("serve", "CMD")))
    assert options.host == "0.0.0.0" and str(options.port) == one("serve", "EXPOSE")
    assert json.loads(one("serve", "ENTRYPOINT")) == ["mlcls"]
    port, path = re.search(r"127\.0\.0\.1:(\d+)(/\w+)'", one("serve", "HEALTHCHECK")).groups()
    assert int(port) == options.port and path in PROBES
    assert int(one("serve", "USER")) > 0 and int(one("train", "USER")) > 0


def test_images_are_built_of_files_and_extras_that_are_there():
    ignored = (CONTAINERS / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        word
        for name in ("wheel", "base")
        for line in stage(name)
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == let_in and all((REPOSITORY / name).exists() for name in copied)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for name in ("train", "serve"):
        extras = re.search(r"\[([\w,]+)\$\{ACCELERATOR:\+,\$ACCELERATOR\}\]", one(name, "RUN"))[1]
        assert {*extras.split(","), "cuda"} <= project["optional-dependencies"].keys()
    script = re.search(r"sed -n '(.*?)' ", one("base", "RUN"))[1]
    lock = ["sed", "-n", script, REPOSITORY / "requirements.lock"]
    constraints = subprocess.run(lock, capture_output=True, text=True, check=True).stdout
    names = [Requirement(line).name for line in constraints.splitlines()]
    assert {"jax", "fastapi", "numpy"} <= set(names)


def test_the_composed_server_is_watched_where_it_listens():
    services = COMPOSE["services"]
    server = services["server"]
    options = server_of(server["command"])
    assert server["read_only"] and "/tmp" in server["tmpfs"] and server["cap_drop"] == ["ALL"]
    assert server["ports"] == [f"127.0.0.1:{options.port}:{options.port}"]
    assert int(server["stop_grace_period"].rstrip("s")) > options.drain_timeout_s
    assert server["environment"].keys() == {API_KEY}
    assert server["build"]["target"] == "serve"
    assert (CONTAINERS / server["build"]["context"]).resolve() == REPOSITORY
    assert REPOSITORY / server["build"]["dockerfile"] == CONTAINERS / "Dockerfile"
    for service in services.values():
        places = [place for place in service["volumes"] if place.startswith("./")]
        assert all((CONTAINERS / place.split(":")[0]).is_file() for place in places)
    prometheus = yaml.safe_load((CONTAINERS / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["metrics_path"] in PROBES
    assert job["static_configs"] == [{"targets": [f"server:{options.port}"]}]
    (source,) = yaml.safe_load((CONTAINERS / "grafana/datasource.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services


def test_the_board_asks_for_metrics_and_labels_that_the_server_has():
    known = metrics_of_the_server()
    board = json.loads((CONTAINERS / "grafana/server.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert asked
    for text in asked:
        names = re.findall(r"\b(?:mlcls|process)_\w+", text)
        assert names and set(names) <= known.keys(), text
        labels = {"instance", "job", *(label for name in names for label in known[name])}
        for by in re.findall(r"by \(([\w, ]+)\)", text):
            assert set(by.split(", ")) <= labels, text
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    (source,) = yaml.safe_load((CONTAINERS / "grafana/datasource.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}


def test_the_pods_are_probed_stopped_and_locked_as_the_server_needs():
    options = server_of(CONTAINER["args"])
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == options.port
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[name]["httpGet"]
        assert asked["path"] in PROBES and asked["port"] == port["name"]
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["spec"]["terminationGracePeriodSeconds"] > options.drain_timeout_s + pause
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    assert POD["spec"]["securityContext"]["runAsUser"] == int(one("serve", "USER"))
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert [variable["name"] for variable in CONTAINER["env"]] == [API_KEY]
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {"model": "/model", "tmp": "/tmp"}
    assert {volume["name"] for volume in POD["spec"]["volumes"]} == mounts.keys()
    notes = POD["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in PROBES
    assert notes["prometheus.io/port"] == str(options.port)


def test_the_service_and_the_autoscaler_mean_these_pods_and_their_queue():
    labels = POD["metadata"]["labels"]
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert SERVICE["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    target = AUTOSCALER["spec"]["scaleTargetRef"]
    assert target["kind"] == "Deployment" and target["name"] == DEPLOYMENT["metadata"]["name"]
    (metric,) = AUTOSCALER["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in metrics_of_the_server()
    adapter = yaml.safe_load((CONTAINERS / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["matches"] == name and name in rule["metricsQuery"]


@pytest.mark.slow
def test_hadolint_finds_nothing():
    here = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{here}{os.pathsep}{os.environ['PATH']}")
    if not hadolint:
        need("hadolint")  # it has no module: this skips, or fails where nothing may be missing
    done = subprocess.run([hadolint, CONTAINERS / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
