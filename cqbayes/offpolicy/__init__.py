"""Off-policy evaluation: what a log says of a policy that did not make the log.

``estimators`` weigh the rows of a log, ``support`` says whether that can be trusted,
``propensities`` computes the propensities of Thompson sampling, ``counterfactual`` simulates the
queue under draws of a posterior.

May import: ``simulation``, ``predict`` and rooms before.
"""
