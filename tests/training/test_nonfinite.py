"""The policy on numbers that are not finite."""

import pytest

from mlcls_jax.config import Train
from mlcls_jax.training.nonfinite import Policy, Verdict, as_text


@pytest.mark.parametrize("nonfinite", ["stop", "skip", "rollback"])
def test_finite_numbers_are_kept(nonfinite):
    policy = Policy(Train(nonfinite=nonfinite, max_nonfinite=2))
    assert policy.judge({"finite": True}, earlier=100) is Verdict.KEEP


@pytest.mark.parametrize(
    ("nonfinite", "verdict"),
    [("stop", Verdict.STOP), ("skip", Verdict.LEAVE_OUT), ("rollback", Verdict.GO_BACK)],
)
def test_others_are_judged_by_the_option_up_to_its_limit(nonfinite, verdict):
    policy = Policy(Train(nonfinite=nonfinite, max_nonfinite=2))
    verdicts = [policy.judge({"finite": False}, earlier=n) for n in range(4)]
    assert verdicts == [verdict, verdict, Verdict.STOP, Verdict.STOP]


def test_a_bad_step_is_told_with_its_learning_rate():
    numbers = {"loss": float("nan"), "grad_norm": float("inf"), "learning_rate": 0.25}
    told = "step 7: the loss is nan and the gradient's norm inf (learning rate 0.25)"
    assert as_text(7, numbers) == told
