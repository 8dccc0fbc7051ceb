"""A TFDS builder of whatever features and examples a test wants.

It needs no TensorFlow, because its images are encoded already.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image


@dataclasses.dataclass
class TinyConfig(tfds.core.BuilderConfig):
    features: dict[str, Any] = dataclasses.field(default_factory=dict)
    splits: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)


class Tiny(tfds.core.GeneratorBasedBuilder):
    """The examples of its configuration, in TFDS's own shuffled order."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = epath.Path(__file__)  # in a package, TFDS would look for it by importlib_resources

    def _info(self):
        features = tfds.features.FeaturesDict(self.builder_config.features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {name: enumerate(rows) for name, rows in self.builder_config.splits.items()}

    def _generate_examples(self):
        raise AssertionError("the splits are generators already")


def prepare(
    folder: Path, features: dict[str, Any], *, name: str = "one", **splits: list[dict[str, Any]]
) -> Path:
    """Write the data set tiny/`name` into `folder`, or without splits its description only.

    Returns where it lies.
    """
    config = TinyConfig(name=name, features=features, splits=splits)
    builder = Tiny(config=config, data_dir=folder, file_format="array_record")
    path = Path(builder.data_path)
    if splits:
        builder.download_and_prepare()
    else:
        path.mkdir(parents=True)
        builder.info.write_to_directory(path)
    return path


def picture(number: int) -> bytes:
    """A PNG that shows its number."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
