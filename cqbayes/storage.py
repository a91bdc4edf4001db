"""Posteriors on disk: NetCDF or Zarr files that any ArviZ tool reads, checked when they are loaded.

A file holds the groups of :func:`cqbayes.diagnostics.to_datatree` and a group ``state``, the
posterior's own arrays, so that what is loaded draws exactly as what was saved. Its attributes say
which model it is of, with which settings, what the engine said, versions and seed, and a SHA-256 of
all names and numbers.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cqbayes.choice import ChoiceData
from cqbayes.diagnostics import to_datatree
from cqbayes.diagnostics.datatree import coordinates
from cqbayes.errors import InputError
from cqbayes.files import replacing_folder, write_netcdf
from cqbayes.inference import InferenceInfo, Status
from cqbayes.inference.online import OnlineGaussian
from cqbayes.posterior import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, Sizes, layout
from cqbayes.provenance import provenance

FORMAT = "cqbayes posterior 1"
MOST_BYTES = 8 * 2**30  # a file that unpacks to more is refused before it is read
_KINDS = {kind.__name__: kind for kind in (Gaussian, Draws, OnlineGaussian)}
_SIGNED = (
    *("format", "kind", "model", "sizes", "llms", "engine", "status", "reason", "stats"),
    *("versions", "seed"),
)
_FAILED = (Status.NOT_FINITE, Status.NOT_POSITIVE_DEFINITE)  # what was returned is a stand-in


class Stored(NamedTuple):
    """What :func:`load_posterior` gives.

    Attributes:
        posterior: draws as the one that was saved.
        info: what its engine said.
        tree: all groups, for ArviZ.
    """

    posterior: Posterior
    info: InferenceInfo
    tree: Any


def save_posterior(
    path: str | Path,
    posterior: Posterior,
    info: InferenceInfo,
    *,
    data: ChoiceData | None = None,
    llms: list[str] | None = None,
    seed: int | None = None,
    **options: Any,
) -> Any:
    """Writes a posterior, whole or not at all: NetCDF, or Zarr where the name ends in ``.zarr``.

    Args:
        path: where to.
        posterior: a Gaussian, draws, or an online Gaussian.
        info: what its engine said.
        data: the choices, for the groups that need them.
        llms: names of the LLMs.
        seed: what the key was made of, to be written down.
        options: others of :func:`cqbayes.diagnostics.to_datatree`.

    Returns:
        The ``DataTree`` that was written.

    Raises:
        InputError: for a posterior that :func:`load_posterior` would refuse.

    Example:
        >>> import jax, cqbayes, tempfile
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True], [True]], [1, 0])
        >>> posterior, info = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="laplace")
        >>> path = tempfile.mkdtemp() + "/fit.nc"
        >>> _ = cqbayes.save_posterior(path, posterior, info, data=data, seed=0)
        >>> cqbayes.load_posterior(path).info.engine
        'laplace'
    """
    import xarray as xr

    path = Path(path)
    if not isinstance(posterior, Posterior) or not isinstance(info, InferenceInfo):
        raise InputError(
            "save_posterior: expected a path, a posterior and its info, as cqbayes.infer gives "
            f"them, got {type(posterior).__name__} and {type(info).__name__}"
        )
    if path.suffix not in (".nc", ".zarr"):
        raise InputError(f"{path}: expected a name that ends in .nc or .zarr")
    if info.verdict in _FAILED:
        raise InputError(f"{path}: a failed fit is not saved: {info.verdict.meaning}")
    _check_proper(str(path), posterior)
    if path.suffix == ".zarr":
        _check_zarr()
        _check_replaceable(path)
    tree = to_datatree(posterior, data=data, info=info, llms=llms, **options)
    fields = {name: np.asarray(value) for name, value in _arrays(posterior).items()}
    state = {
        name: ([f"{name}_{i}" for i in range(value.ndim)], value) for name, value in fields.items()
    }
    tree["state"] = xr.DataTree(xr.Dataset(state))
    names = llms or [f"llm{j}" for j in range(posterior.sizes.num_llms)]
    tree.attrs.update(
        format=FORMAT,
        kind=type(posterior).__name__,
        model=json.dumps(describe(posterior.model)),
        sizes=json.dumps(posterior.sizes._asdict()),
        llms=json.dumps(names),
        versions=json.dumps(provenance()),
    )
    if seed is not None:
        tree.attrs["seed"] = seed
    tree.attrs["checksum"] = checksum(tree)
    if path.suffix == ".zarr":
        with replacing_folder(path) as temporary:
            tree.to_zarr(temporary, mode="w", consolidated=False, zarr_format=2)
    else:
        write_netcdf(tree, path)
    return tree


def load_posterior(
    path: str | Path,
    *,
    model: PreferenceModel | None = None,
    llms: list[str] | None = None,
    users: list[str] | None = None,
) -> Stored:
    """Reads a posterior, and refuses one that cannot be trusted.

    Args:
        path: a NetCDF file, or a Zarr folder.
        model: the model that it must be of. Where absent it is made anew from its name and
            settings, which only models of ``models/`` have.
        llms: the names that its LLMs must have, in this order.
        users: those that its users must have, likewise.

    Raises:
        InputError: says what is wrong: not such a file, a checksum that is off, another model,
            other LLMs or users, names or shapes that do not fit the model, numbers that are not
            finite, a covariance that is not positive definite, draws that do not vary.
    """
    path = Path(path)
    if model is not None and not isinstance(model, PreferenceModel):
        raise InputError(f"model: expected a PreferenceModel, got {type(model).__name__}")
    tree = _read(path)
    if tree.attrs.get("format") != FORMAT:
        raise InputError(f"{path}: expected a file of format {FORMAT!r}; save it again")
    if tree.attrs.get("checksum") != checksum(tree):
        raise InputError(f"{path}: the checksum is off: it was damaged or changed; fit again")
    try:
        description = json.loads(tree.attrs["model"])
        sizes = Sizes(**json.loads(tree.attrs["sizes"]))
        names = json.loads(tree.attrs["llms"])
        stats = {name: jnp.asarray(v) for name, v in json.loads(tree.attrs["stats"]).items()}
        status = Status[tree.attrs["status"].upper()]
        kind = _KINDS[tree.attrs["kind"]]
        fields = {str(name): jnp.asarray(v.values) for name, v in tree["state"].data_vars.items()}
        engine, reason = tree.attrs["engine"], tree.attrs["reason"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: expected all attributes of format {FORMAT!r}") from None
    if llms is not None and list(llms) != names:
        raise InputError(f"{path}: expected the LLMs {list(llms)}, got {names}")
    if model is None:
        model = _made_anew(path, description)
    elif describe(model) != description:
        raise InputError(f"{path}: expected a posterior of {describe(model)}, got {description}")
    _check_shapes(path, kind, fields, model, sizes, tree)
    posterior = kind(**fields, model=model, sizes=sizes)
    _check_names(path, posterior, tree["posterior"].coords, names, users)
    _check_proper(str(path), posterior)
    return Stored(posterior, InferenceInfo(engine, jnp.array(int(status)), stats, reason), tree)


def describe(model: PreferenceModel) -> dict[str, Any]:
    """A model's name and settings, as JSON holds them."""

    def plain(value: Any) -> Any:
        if isinstance(value, PreferenceModel):
            return describe(value)
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return {"name": model.name, "settings": {name: plain(v) for name, v in model.settings}}


def checksum(tree: Any) -> str:
    """SHA-256 of what a file says: names, shapes and numbers of all groups, and its attributes."""
    digest = hashlib.sha256()
    signed = {name: str(tree.attrs.get(name)) for name in _SIGNED}
    digest.update(json.dumps(signed, sort_keys=True).encode())
    for group in sorted(tree.children):
        variables = tree[group].dataset.variables
        for name in sorted(map(str, variables)):
            values = np.asarray(variables[name].values)
            if values.dtype.kind in "OUT":  # text, whose type depends on the file format
                values = np.frombuffer(json.dumps(values.tolist()).encode(), np.uint8)
            kind = "b" if values.dtype == bool else values.dtype.str
            digest.update(f"{group}/{name} {kind} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _arrays(posterior: Posterior) -> dict[str, Any]:
    names = ("location", "factor", "vectors", "effective")
    found = {name: getattr(posterior, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _read(path: Path) -> Any:
    import xarray as xr

    if not path.exists():
        raise InputError(f"{path}: expected a posterior, found no such file")
    try:
        if path.is_dir():
            _check_zarr()
            tree = xr.open_datatree(path, engine="zarr", consolidated=False)
        else:
            tree = xr.open_datatree(path, engine="h5netcdf")
    except InputError:
        raise
    except Exception as error:  # the readers raise whatever a damaged file makes them stumble over
        raise InputError(
            f"{path}: expected a posterior in NetCDF or Zarr, got something else "
            f"({type(error).__name__})"
        ) from None
    with tree:
        if tree.nbytes > MOST_BYTES:
            raise InputError(f"{path}: expected at most {MOST_BYTES} bytes, got {tree.nbytes}")
        try:
            return tree.load()
        except Exception as error:
            raise InputError(f"{path}: it is damaged ({type(error).__name__})") from None


def _check_zarr() -> None:
    if importlib.util.find_spec("zarr") is None:
        raise InputError("zarr is not installed: pip install 'cqbayes[zarr]', or write .nc")


def _check_replaceable(path: Path) -> None:
    """Only a posterior of ours may be replaced: a folder can hold anything."""
    if path.exists() and not (path.is_dir() and _read(path).attrs.get("format") == FORMAT):
        raise InputError(f"{path}: expected nothing there or a posterior to replace, got another")


def _made_anew(path: Path, description: dict[str, Any]) -> PreferenceModel:
    from cqbayes.catalogue import model_factory

    name, settings = description.get("name"), description.get("settings")
    if not name or not isinstance(settings, dict):
        raise InputError(f"{path}: its model has no name; pass model=... as it was fitted")

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            return _made_anew(path, value)
        return tuple(map(value_of, value)) if isinstance(value, list) else value

    try:
        return model_factory(name)(**{key: value_of(v) for key, v in settings.items()})
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} has no such settings here; pass model=...") from None


def _check_shapes(
    path: Path, kind: type, fields: dict[str, Any], model: PreferenceModel, sizes: Sizes, tree: Any
) -> None:
    form = layout(model, sizes)
    reported = set(map(str, tree["posterior"].data_vars))
    if reported != set(form.dims):
        raise InputError(
            f"{path}: expected the sites {sorted(form.dims)} of {model!r}, got {sorted(reported)}"
        )
    shapes = {name: tuple(value.shape) for name, value in fields.items()}
    if kind is Draws:
        fits = len(shapes.get("vectors", ())) == 3 and shapes["vectors"][-1] == form.size
    else:
        location = shapes.get("location", ())
        square = (*location, location[-1]) if location else ()
        fits = int(np.prod(location)) == form.size and shapes.get("factor") == square
        fits &= len(location) == (2 if kind is OnlineGaussian else 1)
    if not fits:
        raise InputError(f"{path}: expected arrays for {form.size} parameters, got {shapes}")


def _check_names(
    path: Path, posterior: Posterior, found: Any, llms: list[str], users: list[str] | None
) -> None:
    """Refuses names along dimensions that are not those of the model, or not those asked for."""
    stored = {name: found[name].values.tolist() for name in map(str, found)}
    try:
        expected = coordinates(posterior, llms, stored.get("user") if users is None else users)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for name, values in expected.items():
        if name in stored and stored[name] != list(values):
            raise InputError(
                f"{path}: expected the coordinate {name} to be {list(values)}, got {stored[name]}"
            )


def _check_proper(where: str, posterior: Posterior) -> None:
    """Refuses numbers that are not finite, and a covariance that is not positive definite."""
    for name, value in _arrays(posterior).items():
        if not np.isfinite(np.asarray(value)).all():
            raise InputError(f"{where}: expected finite numbers in {name}, got NaN or infinity")
    if isinstance(posterior, Draws):
        _check_varies(where, posterior)
        return
    factor = getattr(posterior, "factor", None)
    # Of the covariance F F^T, without the rounding of the product: the least singular value of F.
    singular = np.linalg.svd(np.asarray(factor, np.float64), compute_uv=False)
    if not (singular[..., -1] > np.finfo(np.float32).eps * singular[..., 0]).all():
        raise InputError(
            f"{where}: expected a covariance that is positive definite; the fit has failed"
        )


def _check_varies(where: str, posterior: Draws) -> None:
    """Refuses draws that are all alike in a parameter, or in a direction that there are draws for.

    A canonical form may fix some of either: what it leaves of normal vectors is what must vary.
    """
    draws = np.asarray(posterior.vectors, np.float64).reshape(-1, posterior.vectors.shape[-1])
    draws = np.unique(draws, axis=0)
    free, rank = np.ones(draws.shape[1], bool), draws.shape[1]
    if posterior.model.canonical is not None:
        form = layout(posterior.model, posterior.sizes)
        noise = jax.random.normal(jax.random.key(0), (2 * form.size, form.size))
        normal = np.asarray(jax.vmap(form.canonical)(noise), np.float64)
        free, rank = np.ptp(normal, axis=0) > 0, _rank(normal)
    stuck = int(np.sum(free & (np.ptp(draws, axis=0) == 0)))
    if stuck:
        raise InputError(
            f"{where}: expected draws that vary, got {stuck} of {len(free)} parameters alike in "
            "all; the fit has failed"
        )
    if len(draws) > len(free) and _rank(draws) < rank:
        raise InputError(
            f"{where}: expected draws with a covariance that is positive definite, got them in "
            f"{_rank(draws)} of {rank} directions; the fit has failed"
        )


def _rank(draws: np.ndarray) -> int:
    """Of the covariance, of parameters in units of their own standard deviation."""
    centred = draws - draws.mean(axis=0)
    deviation = centred.std(axis=0)
    singular = np.linalg.svd(centred / np.where(deviation > 0, deviation, 1), compute_uv=False)
    return int(np.sum(singular > np.finfo(np.float32).eps * singular[0]))
