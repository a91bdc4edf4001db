"""What is believed about a model's parameters after data.

``posteriors`` and ``online_gaussian`` are the kinds of posterior; ``info`` what an engine says of
its own result; ``log_densities`` what engines climb and sample; ``datatree`` a posterior as ArviZ's
``DataTree``; ``storage`` posteriors on disk.

May import: ``choice``, ``preference`` and rooms before.
"""
