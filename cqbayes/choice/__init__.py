"""Choices of users: the data and their likelihoods.

``data`` has :class:`ChoiceData`, one row for each service. ``mnl`` is the multinomial logit with
retrial, and ``channels`` says what a log shows of a choice; ``linear_likelihood`` is a fast form of
both for linear utilities. ``assortments`` finds the best set of LLMs to offer.

May import: ``_tools``.
"""
