"""`mlcls studio --data DATA`: look through a data set in the browser, and mend its labels."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlcls_jax import lazy, usage
from mlcls_jax.commands.compare import page_of
from mlcls_jax.config import Data, from_arguments, option
from mlcls_jax.errors import ConfigError

TOKEN = "MLCLS_STUDIO_TOKEN"  # environment variable


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Look through a data set in the browser, and mend its labels by keyboard.

    Or, with --run, see how a training goes on.
    """

    data: str | None = option(
        None, "folder with images/, label.txt and the lists", path="local", metavar="DATA"
    )
    run: str | None = option(
        None, "instead of it: a run's folder, to see its training go on", path="local"
    )
    model_dir: tuple[str, ...] = option(
        (), "bundles whose scores are shown, sorted and filtered by; several: held side by side",
        path="any", metavar="BUNDLE",
    )  # fmt: skip
    words: str | None = option(
        None,
        "a model with a text tower, such as CLIP_vit_base_patch16_224: to find images by words",
    )
    words_weights: str | None = option(
        None, "folder, file or address of both its towers; None: the published ones", path="any"
    )
    queue: str | None = option(
        None, "a CSV file with a column image: these are opened first, in its order", path="local"
    )
    unlisted: bool = option(
        False, "images that no list names, too: what gets labels is added to the training list"
    )
    train_list: str = option("train.txt", "list of training images, in DATA")
    val_list: str = option("val.txt", "list of validation images, in DATA")
    label_file: str = option("label.txt", "label names, in DATA")
    changes: str | None = option(
        None, "folder for the log of changes; None: studio/ in DATA", path="local"
    )
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all addresses of the machine")
    port: int = option(8081, "port to listen on; 0: any free one", min=0, max=65535)
    token: str | None = option(
        None,
        f"what a browser must know; better given as {TOKEN} in the environment; None: a new one,"
        " but at the loopback address",
        is_secret=True,
    )


def run(argv: list[str]) -> str:
    """Show the page until Ctrl-C, and say what is left to do."""
    parser = usage.parser_of(Arguments, "studio --data photos --model_dir runs/photos/best_model")
    given = from_arguments(Arguments, parser.parse_args(argv))
    if (given.data is None) == (given.run is None):
        parser.error("one of --data and --run is needed")
    token = os.environ.get(TOKEN) if given.token is None else given.token
    if token is not None and (not token.isascii() or not token.isalnum()):
        raise ConfigError("token: must be of letters and digits", f"Give --token or {TOKEN}.")
    with lazy.optional("the studio needs further packages", extra="serve"):
        from mlcls_jax.studio.server import run as serve
        from mlcls_jax.studio.server import watch
    place: Any = {
        "host": given.host,
        "port": given.port,
        "token": token,
        "announce": lambda address: print(f"Open {address}  (Ctrl-C ends the studio)", flush=True),
    }
    if given.run:
        watch(Path(given.run), **place)
        return "The studio is closed; the run is not touched."
    left = serve(
        Data(
            dir=given.data,
            train_list=given.train_list,
            val_list=given.val_list,
            label_file=given.label_file,
        ),
        model_dirs=given.model_dir,
        words=(given.words, given.words_weights) if given.words else None,
        unlisted=given.unlisted,
        queue=Path(given.queue) if given.queue else None,
        changes=Path(given.changes) if given.changes else None,
        compare=partial(page_of, given.model_dir),
        **place,
    )
    if left:
        return (
            f"{left:,} images have changes that are in no list yet: they are kept, and wait in the"
            " next studio for “Write lists”."
        )
    return "The studio is closed."
