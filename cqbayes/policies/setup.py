"""Policies by name: :func:`load_policy`, and the setup that a policy is built from."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from cqbayes._tools import discovery
from cqbayes.environments.environment import Population
from cqbayes.errors import InputError
from cqbayes.policies.belief import Belief
from cqbayes.policies.policy import Policy
from cqbayes.policies.wrappers.fifo import fifo
from cqbayes.preference import Sizes


class Setup(NamedTuple):
    """Everything that a policy's ``build`` may use.

    Attributes:
        sizes: numbers of LLMs and context dimensions.
        slate_size: maximum number of LLMs that answer one query.
        belief: how a Bayesian policy keeps its posterior.
        truth: None except for policies whose file says ``NEEDS_TRUTH = True``.
        values: worth of each LLM's answer when it is taken ``[llm]``, in [0, 1]: quality minus
            price. None for 1 each, where expected reward is departure probability.
        horizon: rounds of the run, for policies that need to know it.
    """

    sizes: Sizes
    slate_size: int
    belief: Belief
    truth: Population | None = None
    values: Float[Array, " llm"] | None = None
    horizon: int | None = None


# Arguments of policy functions that are not settings: they come from the setup.
_GIVEN = ("belief", "num_llms", "dim", "sizes", "slate_size", "population", "truth", "rounds")


def policy_names() -> list[str]:
    """Names of the policies that :func:`load_policy` builds, besides ``fifo_<any of them>``."""
    return discovery.entry_names("policies", "build")


def check_policy_name(name: str) -> str:
    """The policy's own name, without ``fifo_``.

    Raises:
        InputError: for an unknown name; lists the known ones.
    """
    rule = name.removeprefix("fifo_")
    known = policy_names()
    if rule not in known:
        raise InputError(
            f"policy: expected one of {', '.join(known)}, or fifo_ before one, got {name!r}"
        )
    return rule


def load_policy(name: str, setup: Setup, settings: Mapping[str, Any] | None = None) -> Policy:
    """The policy of this name; with ``fifo_`` before it, it serves in order of arrival.

    Only policies whose file says ``NEEDS_TRUTH = True`` can see ``setup.truth``.

    Args:
        name: of the policy.
        setup: what the policy may use.
        settings: keywords of its ``build``, or else of the function of its own name, whose other
            arguments are taken from the setup.
    """
    rule = check_policy_name(name)
    module = discovery.entry_module("policies", rule)
    seen = setup if needs_truth(rule) else setup._replace(truth=None)
    policy = _configured(rule, seen, settings) if settings else module.build(seen)
    if rule == name:
        return policy
    return fifo(policy)


def _from_setup(setup: Setup) -> dict[str, Any]:
    """The parts of a setup, by the argument names of policy functions."""
    return {
        **setup._asdict(),
        "num_llms": setup.sizes.num_llms,
        "dim": setup.sizes.dim,
        "population": setup.truth,
        "rounds": setup.horizon,
    }


def _factory(rule: str) -> tuple[Any, bool]:
    """The function that takes a policy's settings, and whether it is ``build``."""
    module = discovery.entry_module("policies", rule)
    if len(inspect.signature(module.build).parameters) > 1:
        return module.build, True
    return getattr(module, rule, None), False


def policy_settings(name: str) -> list[str]:
    """The keywords that :func:`load_policy` takes for a policy."""
    factory, is_build = _factory(check_policy_name(name))
    parameters = list(inspect.signature(factory).parameters) if factory else []
    given = ("setup",) if is_build else _GIVEN
    return [parameter for parameter in parameters if parameter not in given]


def _configured(rule: str, setup: Setup, settings: Mapping[str, Any]) -> Policy:
    known = policy_settings(rule)
    unknown = [name for name in settings if name not in known]
    if unknown:
        taken = f"one of {', '.join(known)}" if known else "none"
        raise InputError(f"settings of {rule}: expected {taken}, got {unknown[0]!r}")
    factory, is_build = _factory(rule)
    if is_build:
        return factory(setup, **settings)
    parameters = inspect.signature(factory).parameters
    given = {name: part for name, part in _from_setup(setup).items() if name in parameters}
    return factory(**{**given, **settings})


def needs_truth(name: str) -> bool:
    """Whether a policy is built with the true utilities, as the oracle is."""
    module = discovery.entry_module("policies", name.removeprefix("fifo_"))
    return getattr(module, "NEEDS_TRUTH", False)
