"""Log formats: each is a file with an ``IMPORTER``, found by its name (``importer``).

An importer states what a record says. ``messages`` reads messages of every shape, ``conversations``
whole conversations of them, and ``recognise`` identifies a format by its fields.

May import: ``_tools`` and ``logs.schema``.
"""
