"""The words of `model.weights`: published weights by name, from the network or laid out by hand."""

import os
import shutil
from pathlib import Path

from mlcls_jax import files
from mlcls_jax.errors import ConfigError, WeightsError
from mlcls_jax.models import published
from mlcls_jax.models.published import Source
from mlcls_jax.models.registry import (
    FAMILIES,
    ML_SUFFIX,
    find_variant,
    pixels,
    split_name,
    split_tag,
)
from mlcls_jax.models.weights.fetch import kept_file, local_file
from mlcls_jax.paths import HUB, expand

FOLDER = "MLCLS_WEIGHTS"  # a folder in which files are looked for before any network
MIRROR = "MLCLS_MODELS_URL"  # an address that has the files of Paddle under their own names
AUTO, NONE, TIMM = "auto", "none", "timm:"
WORDS = ("official", "backbone", "ssld_stage2", "timm", "words")


def sources(name: str) -> tuple[Source, ...]:
    """Return what is published for the model `name`, the best start first.

    Raises:
      ConfigError: no such model.
    """
    family, variant = find_variant(name)
    backbones = family.sources(variant)
    backbone, tag = split_tag(name)
    if tag:  # they are asked for by name
        backbones = (published.timm(f"{backbone}.{tag}", trained_on="see the hub"), *backbones)
    if variant not in family.official or not name.endswith(ML_SUFFIX):
        return backbones
    return (published.official(f"{variant}{ML_SUFFIX}"), *backbones)


def official_models() -> tuple[str, ...]:
    """Return the names of the models that are published whole, with ML-Decoder and 80 labels."""
    return tuple(f"{name}{ML_SUFFIX}" for family in FAMILIES.values() for name in family.official)


def find(word: str, name: str) -> Source | None:
    """Return what a word of `model.weights` means for the model `name`; None: it is no such word.

    Raises:
      WeightsError: nothing of this kind is published for the model.
    """
    if word.startswith(TIMM):
        return published.timm(word.removeprefix(TIMM), trained_on="see the hub")
    if word not in (AUTO, *WORDS):
        return None
    known = sources(name)
    found = next((source for source in known if word in (AUTO, source.word)), None)
    if found is None:
        words = ", ".join(source.word for source in known)
        raise WeightsError(
            f"model.weights={word}: no such weights are published for {name}",
            f"There are {words}." if words else "Start from random weights: model.weights=none.",
        )
    return found


def name_for(name: str, source: str) -> str:
    """Return the name under which a model is given the pixels that its weights were trained with.

    It is `name`, or timm's with the tag of the weights, where `source` is `timm:NAME.TAG` and those
    of this tag differ.
    """
    backbone, suffix = split_name(name)
    tagged = f"{source.removeprefix(TIMM)}{suffix}"
    if not source.startswith(TIMM) or tagged == name:
        return name
    try:
        is_twin = find_variant(tagged)[1] == find_variant(backbone)[1]
    except ConfigError:  # a file of another network: it is loaded as far as it fits
        return name
    return tagged if is_twin and pixels(tagged) != pixels(name) else name


def weight_file(source: str | Path, name: str) -> Path:
    """Return the path of a weight file: of a word, an address or a path, for the model `name`.

    Raises:
      WeightsError: it is not published, cannot be fetched, or has another checksum.
    """
    known = find(str(source), name)
    if known is None:
        return local_file(source)
    # What was kept of a URL is read by `local_file`, which compares its checksum.
    if here := kept(known) if known.address.startswith(HUB) else _laid_down(known):
        return here
    try:
        return local_file(address(known))
    except WeightsError as error:
        raise WeightsError(
            f"model.weights={source}: {error.message}",
            f"Without a network, fetch {known.address} elsewhere and keep it here by"
            f" `mlcls weights add {known.file}`, or name its folder in the environment as"
            f" {FOLDER}. In training, model.weights=none starts from random weights.",
        ) from error


def kept(source: Source) -> Path | None:
    """Return the file if it is on this machine; None: it would have to be fetched."""
    return _laid_down(source) or _existing(_cached(source))


def add(file: Path, source: Source) -> Path:
    """Copy a file that was fetched by hand to where it is looked for; return the new path."""
    target = _cached(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        shutil.copyfile(file, temporary)
    return target


def address(source: Source) -> str:
    """Return where a file is fetched from: its publisher, or the mirror."""
    mirror = os.environ.get(MIRROR)
    if source.address.startswith(HUB) or not mirror:
        url = source.address
    else:
        url = f"{mirror.rstrip('/')}/{source.file}"
    return f"{url}#sha256={source.sha256}" if source.sha256 else url


def _laid_down(source: Source) -> Path | None:
    """Return the file in the user's folder, if there is one."""
    folder = os.environ.get(FOLDER)
    return _existing(Path(expand(folder), source.file)) if folder else None


def _cached(source: Source) -> Path:
    return kept_file(address(source).partition("#")[0], source.file)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
