"""The parser of a command's arguments."""

import argparse

import pytest

from mlcls_jax import usage


def test_flags_may_be_typed_with_hyphens(capsys):
    parser = usage.parser("plan", "Plans.", "plan")
    parser.add_argument("--find_batch", action="store_true")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("rest", nargs="*")
    given = ["--find-batch", "--batch-size=8", "--no-compile", "a-b=c-d"]
    found = parser.parse_args(given)
    assert found == parser.parse_args([*given[2:], "--find_batch", "--batch_size", "8"])
    assert (found.find_batch, found.batch_size, found.compile) == (True, 8, False)
    assert found.rest == ["a-b=c-d"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--batch-sizes=8"])
    assert "--batch-sizes=8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--input", "x", "--epoch", "3"], "--epoch: did you mean --epochs?"),
        (["--inputt=x"], "--inputt: did you mean --input?"),
        (["--input", "x", "--zzz"], "unrecognized arguments: --zzz"),
    ],
)
def test_a_flag_that_nobody_knows_gets_the_nearest_spelling(capsys, given, told):
    parser = usage.parser("train", "Trains.", "train")
    parser.add_argument("--input", required=True)
    parser.add_argument("--epochs", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(given)
    assert capsys.readouterr().err.strip().endswith(told)


def test_what_holds_without_a_flag_is_told_as_its_default():
    parser = usage.parser("score", "Scores.", "score")
    parser.add_argument("--split", help="of a packed data set; None: all")
    parser.add_argument("--threads", type=int, default=8, help="that read images")
    parser.add_argument("subject", nargs="?", default="", help="a model")
    told = " ".join(parser.format_help().split())
    assert "of a packed data set (default: all)" in told
    assert "that read images (default: 8)" in told
    assert "a model" in told and "(default: )" not in told and "None" not in told
