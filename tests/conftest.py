"""Shapes and types are checked at run time in tests, and only there."""

import os

# Before JAX is imported: four host devices would hide data races, one is what users have.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

with install_import_hook("cqbayes", "beartype.beartype"):
    import cqbayes  # noqa: F401
    import cqbayes.choice

from pathlib import Path

import jax
import numpy as np
import pytest

from cqbayes.choice import ChoiceData, choice_data

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"
