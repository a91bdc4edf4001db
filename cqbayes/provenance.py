"""What made a result: versions, settings and seed, to be written beside it."""

import platform
from importlib.metadata import version
from typing import Any

_PACKAGES = ("cqbayes", "jax", "jaxlib", "numpyro", "equinox", "arviz-stats", "numpy")


def provenance(**settings: Any) -> dict[str, Any]:
    """Versions of what computes, and the settings given.

    Example:
        >>> provenance(seed=1)["seed"]
        1
    """
    versions = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions, **settings}
