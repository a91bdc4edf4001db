"""ACQB that sees no contexts: what vain answers alone are worth.

As :mod:`cqbayes.policies.acqb` with memory, and a belief whose slopes are all zero: it knows how
good each LLM is on average, and which ones answered a waiting query in vain. What contexts are
worth is what a policy with contexts gains over it.

Source: ours.
"""

from cqbayes.inference.online_memory import MEMBERS
from cqbayes.policies.acqb import acqb
from cqbayes.policies.belief import memory
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup


def build(setup: Setup) -> Policy:
    """The policy; of the members of :mod:`cqbayes.inference.online_memory`, those that recall."""
    without = [member._replace(scale=0.0) for member in MEMBERS if member.recalls]
    belief = memory(setup.sizes, members=tuple(dict.fromkeys(without)))
    return acqb(belief, setup.sizes.num_llms, setup.slate_size, values=setup.values)
