"""Detectors as files: numbers and names in JSON, no code."""

import json
import re
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np

from cqbayes._tools.files import write_bytes
from cqbayes.errors import InputError
from cqbayes.logs.retrials.detector import Detector, Logistic
from cqbayes.logs.retrials.error_rates import Errors
from cqbayes.logs.retrials.pairs import FEATURES, MEANING

FORMAT = 1


def save_detector(path: str | Path, detector: Detector) -> None:
    """Writes a detector as JSON.

    Raises:
        InputError: where the file cannot be written.
    """
    said = {
        "format": FORMAT,
        "trained_on": detector.trained_on,
        "errors": None if detector.errors is None else detector.errors._asdict(),
        "plain": _said(detector.plain),
        "embedded": None if detector.embedded is None else _said(detector.embedded),
    }
    text = json.dumps(said, indent=1)
    # A matrix is read row by row: what is innermost stands on one line.
    text = re.sub(r"\[\s*([^\[\]]*?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_bytes((text + "\n").encode(), path)


def _said(one: Logistic) -> dict[str, Any]:
    def short(values: np.ndarray) -> Any:
        return (
            [short(v) for v in values] if values.ndim > 1 else [float(f"{v:.6g}") for v in values]
        )

    numbers = {
        name: short(getattr(one, name)) for name in ("centre", "scale", "mean", "covariance")
    }
    return {"features": list(one.features), **numbers, "prevalence": float(f"{one.prevalence:.6g}")}


def load_detector(path: str | Path | None = None) -> Detector:
    """Reads a detector; without a path, the one that comes with the package.

    Raises:
        InputError: for a file that cannot be read or is no detector.

    Example:
        >>> load_detector().plain.features == FEATURES
        True
    """
    where = "detector" if path is None else str(path)
    try:
        source = (
            resources("cqbayes.logs.retrials") / "detector.json" if path is None else Path(path)
        )
        said = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{where}: expected a detector that can be read, got: {reason}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: expected a detector in JSON, got something else") from None
    try:
        if said["format"] != FORMAT:
            raise ValueError
        errors = said["errors"]
        return Detector(
            _read(said["plain"], FEATURES),
            None if said["embedded"] is None else _read(said["embedded"], (*FEATURES, MEANING)),
            None if errors is None else _errors(**errors),
            str(said["trained_on"]),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{where}: expected a detector of format {FORMAT} with these features, got another "
            "file; make it with save_detector"
        ) from None


def _read(said: Any, names: tuple[str, ...]) -> Logistic:
    num = len(names)
    shapes = {"centre": (num,), "scale": (num,), "mean": (num + 1,), "covariance": (num + 1,) * 2}
    numbers = {name: np.asarray(said[name], np.float64) for name in shapes}
    found = Logistic(tuple(said["features"]), **numbers, prevalence=float(said["prevalence"]))
    right = (
        found.features == names
        and all(numbers[name].shape == shape for name, shape in shapes.items())
        and all(np.isfinite(values).all() for values in numbers.values())
        and (found.scale > 0).all()
        and np.allclose(found.covariance, found.covariance.T, rtol=1e-3)
        and (np.linalg.eigvalsh(found.covariance) > -1e-6).all()
        and 0 < found.prevalence < 1
    )
    if not right:
        raise ValueError
    return found


def _errors(threshold: float, recognised: Any, specificity: Any) -> Errors:
    pairs = [tuple(float(v) for v in both) for both in (recognised, specificity)]
    if not 0 < threshold < 1 or any(len(p) != 2 or not 0 < min(p) <= max(p) < 1e9 for p in pairs):
        raise ValueError
    (a, b), (c, d) = pairs
    return Errors(float(threshold), (a, b), (c, d))
