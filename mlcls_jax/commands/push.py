"""`mlcls push RUN owner/name`: a model to the Hugging Face Hub, with a card of its own."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_jax import files, lazy, usage
from mlcls_jax.config import REQUIRED, option
from mlcls_jax.errors import InputError, UserError
from mlcls_jax.workdir import CONFIG_FILE, DATA_FILE, EVALUATION

if TYPE_CHECKING:
    from mlcls_jax.reports.model_card import Facts

CARD = "README.md"  # on the hub
DRAFT = "model_card.md"  # of --dry_run, beside the bundle


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Put a model on the Hugging Face Hub.

    There create_model and --model_dir find it as hf://owner/name. The token is that of `hf auth
    login`, or HF_TOKEN in the environment.
    """

    model: str = option(
        REQUIRED, "run, or bundle such as its best_model", path="local", positional=True
    )
    repository: str = option(REQUIRED, "owner/name on the hub", positional=True)
    private: bool = option(False, "only you may see it; refused if it is there and open")
    license: str | None = option(None, "of the model, as the hub spells it: apache-2.0, mit, other")
    dataset: tuple[str, ...] = option((), "data sets on the hub that it was trained on")
    card: str | None = option(
        None, "card of your own, the edited one of --dry_run for instance", path="local"
    )  # fmt: skip
    dry_run: bool = option(False, "write the card, list the files, send nothing")


def run(argv: list[str]) -> str:
    """Send the files, and return the address of the model."""
    given = usage.arguments(Arguments, argv, "push runs/photos-1 owner/name --private")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given.repository):
        raise InputError(f"{given.repository}: is no name on the hub", "Give owner/name.")
    import jax  # which a help does without

    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    from mlcls_jax.inference.bundle import DESCRIPTION, WEIGHTS, model_folder, read_bundle

    place = model_folder(given.model)
    read_bundle(place)  # nothing damaged leaves
    card = _card(given, place)
    contents: dict[str, bytes | Path] = {
        CARD: card.encode(),
        **{name: files.current_folder(place) / name for name in (DESCRIPTION, WEIGHTS)},
    }
    if given.dry_run:
        files.write_text(place / DRAFT, card)
        lines = [f"Nothing was sent. To {given.repository} would go:"]
        for name, content in contents.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            lines.append(f"  {name:20} {size / 1e6:10,.3f} MB")
        return "\n".join([*lines, f"The card is in {place / DRAFT}; --card takes it when edited."])
    address = _send(given, contents)
    return (
        f"{address}\nNext:\n  {usage.program()} predict --model_dir hf://{given.repository}"
        " --input IMAGES"
    )


def _card(given: Arguments, place: Path) -> str:
    if given.card:
        try:
            return files.regular(given.card).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"--card={given.card}: cannot be read: {error}") from error
    from mlcls_jax.reports.model_card import model_card

    return model_card(
        _facts(place), given.repository, licence=given.license, datasets=given.dataset
    )


def _facts(place: Path) -> "Facts":
    """Return what the files of a bundle, and of the run that it lies in, say."""
    from mlcls_jax.inference.bundle import DESCRIPTION, WEIGHTS
    from mlcls_jax.reports.model_card import Facts
    from mlcls_jax.runs import Run

    here, run = files.current_folder(place), place.resolve().parent
    bundle, size = files.read_json(here / DESCRIPTION), (here / WEIGHTS).stat().st_size
    if not (run / CONFIG_FILE).is_file():
        return Facts(bundle, size)
    evaluation, data = (
        files.read_json(path) if path.is_file() else None
        for path in (run / EVALUATION, run / DATA_FILE)
    )
    if evaluation and Path(evaluation.get("model_dir", "")).name != place.name:
        evaluation = None  # of another model
    return Facts(bundle, size, Run(run).config, data, evaluation)


def _send(given: Arguments, contents: dict[str, bytes | Path]) -> str:
    """Put all files into one commit, and return the address of the repository."""
    with lazy.optional("the Hugging Face Hub needs a library", extra="hub"):
        from huggingface_hub import (  # pyright: ignore[reportMissingImports]
            CommitOperationAdd,
            HfApi,
        )
    hub = HfApi(library_name="mlcls_jax")
    with _told(given.repository):
        repository = hub.create_repo(given.repository, private=given.private, exist_ok=True)
        is_open = given.private and not hub.model_info(given.repository).private
    if is_open:
        raise UserError(
            f"{given.repository}: is there already, and open to everybody: nothing was sent",
            "Make it private on the hub, choose another name, or leave out --private.",
        )
    with _told(given.repository):
        hub.create_commit(
            given.repository,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message="Push a model of mlcls_jax",
        )
    return str(repository)


@contextlib.contextmanager
def _told(repository: str) -> Iterator[None]:
    """Tell errors of the library and of the network as the hub's."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{repository}: the hub says: {str(error).strip()}",
            "It needs a token that may write: `hf auth login`, or HF_TOKEN in the environment.",
        ) from error
