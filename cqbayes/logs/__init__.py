"""Logs of services: from what platforms store to choice data, and to a fitted model.

``formats/`` has one importer a file, ``retrials/`` says which turns ask again, ``table/`` reads the
long table of services (``schema``). ``read`` goes all the way to choice data, ``fit`` to a
posterior, ``predictions`` applies a posterior on disk to a file of queries.

May import: all rooms before.
"""
