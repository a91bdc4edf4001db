"""Tools of all rooms: files, progress, provenance, compiled code, discovery, digests, tables,
figures.

They know nothing of preferences, queues or logs.

May import: ``cqbayes.errors`` alone.
"""
