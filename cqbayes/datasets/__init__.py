"""Routing data (``scores``): queries in words (``text_scores``) or as contexts (``score_table``).

``load`` finds the data sets of ``data/`` by name; ``files`` knows where their files are and gets
those that are published; ``contexts`` makes contexts of text.

May import: ``embeddings`` and ``_tools``.
"""
