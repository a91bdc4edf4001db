"""Preference models: one NumPyro model of users per file, each with its ``MODEL``."""
