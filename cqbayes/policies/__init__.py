"""Policies: which waiting query to serve next, and which LLMs should answer it.

A file with a ``build`` is a policy, found by its name (``setup``); ``policy`` says what a policy
is, ``belief`` how a policy keeps its posterior. ``wrappers/`` change what any policy sees or does.

May import: ``environments``, ``inference`` and rooms before.
"""
