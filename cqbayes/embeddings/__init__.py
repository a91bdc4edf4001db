"""From text to contexts: a frozen sentence encoder, then a projection fitted on training queries.

Functions take arrays and return arrays. Only this package imports PyTorch (extra ``embed``), inside
the functions that need it.

May import: ``_tools``.
"""
