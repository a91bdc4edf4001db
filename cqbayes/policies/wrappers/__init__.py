"""Wrappers: each makes a new policy from another one, and wrappers can be combined.

May import: what ``policies`` may import.
"""
