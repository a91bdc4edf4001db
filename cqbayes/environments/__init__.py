"""Environments in which queries wait: the retrial queue, and the true utilities of its users.

``environment`` has the records that policies and simulations use, such as ``Observation`` and
``Action``. This package does not use models, posteriors or engines.

May import: ``choice``, ``datasets`` and ``_tools``.
"""
