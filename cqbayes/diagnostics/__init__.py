"""Can a posterior, its data, a forecast or a set of contexts be relied on?

``summary`` is ArviZ's table and the agreement of two posteriors; ``reliability`` compares
predictions with what happened; ``calibration`` and ``collection`` are simulation-based calibration;
``context_quality`` judges contexts; ``data_verdict`` judges the data of a fit by their counts.

May import: ``simulation`` and rooms before.
"""
