"""Settings of policies that cannot be meant are refused in one line, when the policy is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.disjoint_mnl import disjoint_mnl

from cqbayes._tools.digests import fingerprint
from cqbayes.choice.assortments import best_assortment
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.q_ths import q_ths
from cqbayes.policies.setup import Setup, load_policy, policy_names, policy_settings
from cqbayes.policies.thompson import thompson
from cqbayes.policies.wrappers.explore import constant
from cqbayes.preference import Sizes

SIZES = Sizes(3, 2)
BELIEF = belief.online(disjoint_mnl(), SIZES)
TRUTH = synthetic(jax.random.key(0), 3, 2)
# Only their truth or belief knows how many LLMs there are.
UNTOLD = ("oracle", "linear_oracle", "thompson", "greedy")
VALUED = [name for name in policy_names() if "values" in policy_settings(name)]


def _made(name, slate_size=1, **settings):
    return load_policy(name, Setup(SIZES, slate_size, BELIEF, TRUTH, horizon=50), settings)


def test_all_policies_with_values_are_found():
    assert {"acqb", "oracle", "linucb", "cqb_eps", "ts_qmb", "best_single"} <= set(VALUED)


@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize("values", [[0.5, -0.1, 1.0], [0.5, np.nan, 1.0], [0.5, 1.5, 1.0]])
def test_values_out_of_range(name, values):
    with pytest.raises(InputError, match=r"values: expected numbers in \[0, 1\]"):
        _made(name, values=jnp.array(values))


@pytest.mark.parametrize("name", [name for name in VALUED if name not in UNTOLD])
def test_values_for_other_llms(name):
    with pytest.raises(InputError, match=r"values: expected one for each of 3 LLMs, got \(2,\)"):
        _made(name, values=jnp.array([0.5, 1.0]))


def test_values_for_other_llms_are_refused_at_the_latest_when_they_are_used():
    with pytest.raises(InputError, match=r"values: expected one for each of 3 LLMs, got \(1,\)"):
        best_assortment(jnp.zeros((4, 3)), 1, jnp.array([0.5]))
    with pytest.raises(InputError, match="slate size: expected 1 to 3"):
        best_assortment(jnp.zeros((4, 3)), 0)


@pytest.mark.parametrize("name", VALUED)
def test_build_passes_the_values_of_the_setup_on(name):
    """What a policy is built with by its setup alone is what its ``values`` make of it."""
    plain = _parts(_made(name))
    found = []
    for values in (jnp.array([1.0, 0.1, 0.1]), jnp.array([0.1, 1.0, 0.1])):
        setup = Setup(SIZES, 1, BELIEF, TRUTH, values=values, horizon=50)
        built = _parts(load_policy(name, setup))
        assert built == _parts(_made(name, values=values))
        found.append(built)
    assert found[0] != found[1]
    assert plain not in found or name == "best_single"  # which may be best without values, too


def test_build_of_one_on_top_of_another_passes_values_on():
    values = jnp.array([1.0, 0.1, 0.1])
    setup = Setup(SIZES, 1, BELIEF, values=values, horizon=50)
    assert _parts(load_policy("vary", setup)) != _parts(_made("vary"))


def _parts(policy):
    return fingerprint("policy", policy)


@pytest.mark.parametrize("name", policy_names())
@pytest.mark.parametrize("slate_size", [0, -1])
def test_slates_of_nobody(name, slate_size):
    with pytest.raises(InputError, match=f"slate size: expected .*1.*, got {slate_size}"):
        _made(name, slate_size)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda wrong: acqb(BELIEF, 3, c=wrong), "exploration: expected c to be a number of at"),
        (lambda wrong: acqb(BELIEF, 3, alpha=wrong), "thompson: expected alpha to be a number of"),
        (lambda wrong: thompson(BELIEF, alpha=wrong), "thompson: expected alpha to be a number of"),
        (lambda wrong: q_ths(3, factor=wrong), "q_ths: expected factor to be a number of at least"),
        (constant, r"exploration: expected epsilon to be a probability in \[0, 1\]"),
    ],
)
def test_numbers_that_make_no_sense(make, message, wrong):
    with pytest.raises(InputError, match=f"{message}.*, got {wrong}") as error:
        make(wrong)
    assert "\n" not in str(error.value)
