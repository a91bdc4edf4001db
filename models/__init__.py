"""What we believe about users: one NumPyro preference program per file, each with its MODEL."""
