"""Finds entries by name: models, engines, policies, log formats, data sets, one file each.

A module or package directly inside a package is an entry if it has a given attribute. This module
does not know the types of entries: the package that owns a type has its loader.
"""

import importlib
import pkgutil
from typing import Any

from cqbayes.errors import InputError


def entry_names(package: str, *attributes: str) -> list[str]:
    """Names of the modules of ``cqbayes.<package>`` that have any of the attributes.

    Example:
        >>> entry_names("_tools", "entry_names")
        ['discovery']
    """
    parent = importlib.import_module(f"cqbayes.{package}")
    found = sorted(entry.name for entry in pkgutil.iter_modules(parent.__path__))
    return [
        name
        for name in found
        if any(hasattr(entry_module(package, name), attribute) for attribute in attributes)
    ]


def entry_module(package: str, name: str) -> Any:
    """The module ``cqbayes.<package>.<name>``."""
    return importlib.import_module(f"cqbayes.{package}.{name}")


def find_entry(package: str, kind: str, name: str, *attributes: str) -> Any:
    """The module of an entry.

    Args:
        package: name of the package inside ``cqbayes``, with dots.
        kind: word for an entry in the error message, such as "model".
        name: name of the entry.
        attributes: an entry has at least one of these attributes.

    Raises:
        InputError: if there is no such entry; the message lists the known entries.
    """
    known = entry_names(package, *attributes)
    if name not in known:
        raise InputError(f"{kind}: expected one of {', '.join(known)}, got {name!r}")
    return entry_module(package, name)
