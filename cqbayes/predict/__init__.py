"""Predictions of a posterior: for new queries, after a change, and for a new LLM.

May import: ``posterior`` and rooms before.
"""
