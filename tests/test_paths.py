"""Paths as users write them."""

from pathlib import Path

import pytest

from mlcls_jax import create_model
from mlcls_jax.errors import ConfigError, WeightsError
from mlcls_jax.models.weights.fetch import local_file
from mlcls_jax.paths import expand, is_url, local_path, local_text


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("runs/demo", "runs/demo"),
        ("~/a b", "/home/me/a b"),
        ("file:///data/a%20b", "/data/a b"),
        ("FILE://localhost/data/é#1", "/data/é#1"),
        ("file:/data", "/data"),  # what Path makes of it
        ("./gs:/x", "./gs:/x"),
        ("C:/photos", "C:/photos"),
        ("2024-05-01T10:/x", "2024-05-01T10:/x"),
        ("a~b/~", "a~b/~"),
    ],
)
def test_paths_of_this_machine(given, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand(given) == meant
    assert local_path("--output", given) == Path(meant)
    assert not is_url(meant)


@pytest.mark.parametrize(
    "given",
    ["gs://bucket/run", "S3://bucket", "hf://owner/name", "https://a.example/b", "file://server/x",
     Path("gs://bucket/run"), "file:////server/x"],
)  # fmt: skip
def test_urls_are_refused_by_the_name_of_the_option(given):
    with pytest.raises(ConfigError) as caught:
        local_path("--workdir", given)
    assert caught.value.message.startswith(f"--workdir={given}: must be a path on this machine")


def test_the_library_understands_the_same_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("gs://bucket/model", Path("gs://bucket/model")):
        with pytest.raises(ConfigError, match="model_dir=gs:/+bucket/model: must be a path on"):
            create_model(model_dir=given)
    for given in ("~/best", f"file://{tmp_path}/best"):
        with pytest.raises(WeightsError, match=f"^{tmp_path}/best/inference.json: there is no"):
            create_model(model_dir=given)
    assert local_file("~/a.pdparams") == tmp_path / "a.pdparams"
    with pytest.raises(ConfigError, match="weights=s3://b/a.pth: must be a path on"):
        local_file("s3://b/a.pth")


def test_nothing_and_the_home_of_nobody_are_refused():
    with pytest.raises(ConfigError, match="model_dir=: must be a path, and is empty"):
        local_path("model_dir", "")
    with pytest.raises(ConfigError, match="~nobody-here/x: must be in a home folder that is known"):
        local_path("model_dir", "~nobody-here/x")


def test_a_slash_at_the_end_says_that_it_is_a_folder():
    assert local_text("--save_path", "file:///results_v1.0/") == "/results_v1.0/"


def test_a_file_whose_name_begins_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~draft.png").touch()
    assert local_path("--input", "~draft.png") == Path("~draft.png")
