"""Versions, settings and seed that made a result, to be written beside the result."""

import platform
from importlib.metadata import version
from typing import Any

_PACKAGES = ("cqbayes", "jax", "jaxlib", "numpyro", "equinox", "arviz-stats", "numpy")


def provenance(**settings: Any) -> dict[str, Any]:
    """Versions of Python and of the packages that compute, and the given settings.

    Example:
        >>> provenance(seed=1)["seed"]
        1
    """
    versions = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions, **settings}
