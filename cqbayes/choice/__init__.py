"""Choices of users: the data and their likelihoods.

``data`` has :class:`ChoiceData`, one row for each service. ``mnl`` is the multinomial logit with
retrial, and ``linear_likelihood`` a fast form of it for linear utilities. ``channels`` says what a
log shows of a choice. ``assortments`` finds the best set of LLMs to offer.

May import: ``_tools``.
"""
