"""Inference engines, one file each: :func:`cqbayes.infer` runs any of them by name.

A file with an ``ENGINE`` is an engine (``engine`` says what that is); ``sharding`` spreads rows
over devices.

May import: ``posterior`` and rooms before.
"""
