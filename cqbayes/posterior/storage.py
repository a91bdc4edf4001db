"""Posteriors on disk: NetCDF or Zarr files that any ArviZ tool reads, checked when they are loaded.

A file holds the groups of :func:`cqbayes.posterior.datatree.to_datatree` and a group ``state`` with
the posterior's own arrays: a loaded posterior gives exactly the draws of the saved one. The file's
attributes hold the model's name and settings, the engine's report, versions, the seed, and a
SHA-256 of all names and numbers.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cqbayes._tools.files import replacing_folder, write_netcdf
from cqbayes._tools.provenance import provenance
from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.posterior.datatree import coordinates, to_datatree
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.online_gaussian import OnlineGaussian
from cqbayes.posterior.posteriors import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, Sizes, layout

FORMAT = "cqbayes posterior 1"
MOST_BYTES = 8 * 2**30  # a file that unpacks to more is refused before it is read
_KINDS = {kind.__name__: kind for kind in (Gaussian, Draws, OnlineGaussian)}
_SIGNED = (
    *("format", "kind", "model", "sizes", "llms", "engine", "status", "reason", "stats"),
    *("versions", "seed"),
)
_FAILED = (Status.NOT_FINITE, Status.NOT_POSITIVE_DEFINITE)  # the posterior is a mere stand-in


class Stored(NamedTuple):
    """A posterior from disk, as :func:`load_posterior` returns it.

    Attributes:
        posterior: gives the same draws as the saved posterior.
        info: the engine's report.
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
    """Writes a posterior as NetCDF, or as Zarr if the name ends in ``.zarr``.

    A failed write leaves no partial file.

    Args:
        path: name of the file, which ends in ``.nc`` or ``.zarr``.
        posterior: a Gaussian, draws, or an online Gaussian.
        info: the engine's report.
        data: the choices, for the groups that need them.
        llms: names of the LLMs.
        seed: the seed of the JAX key; it is written into the file.
        options: further arguments of :func:`cqbayes.posterior.datatree.to_datatree`.

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
        raise InputError(f"{path}: a failed fit is not saved; {info.verdict.meaning}")
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
    """A posterior that :func:`save_posterior` wrote, after checks of the file.

    Args:
        path: a NetCDF file, or a Zarr folder.
        model: the model that the posterior must have. If absent, the model is made again from the
            name and settings in the file; this works for models of ``models/`` only.
        llms: the names that the LLMs must have, in this order.
        users: the names that the users must have, in this order.

    Raises:
        InputError: for another kind of file, a wrong checksum, another model, other LLMs or users,
            names or shapes that do not fit the model, numbers that are not finite, a covariance
            that is not positive definite, or draws that do not vary.
    """
    path = Path(path)
    if model is not None and not isinstance(model, PreferenceModel):
        raise InputError(f"model: expected a PreferenceModel, got {type(model).__name__}")
    tree = _read(path)
    if tree.attrs.get("format") != FORMAT:
        raise InputError(f"{path}: expected a file of format {FORMAT!r}; save it again")
    if tree.attrs.get("checksum") != checksum(tree):
        raise InputError(f"{path}: the checksum is off: the file was damaged or changed; fit again")
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
    """A model's name and settings, in types that JSON has."""

    def plain(value: Any) -> Any:
        if isinstance(value, PreferenceModel):
            return describe(value)
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return {"name": model.name, "settings": {name: plain(v) for name, v in model.settings}}


def checksum(tree: Any) -> str:
    """SHA-256 of a file's contents: names, shapes and numbers of all groups, and attributes."""
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
    except Exception as error:  # a damaged file can raise any error in the readers
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
            raise InputError(
                f"{path}: the file is damaged ({type(error).__name__}); fit again"
            ) from None


def _check_zarr() -> None:
    if importlib.util.find_spec("zarr") is None:
        raise InputError("zarr is not installed: pip install 'cqbayes[zarr]', or write .nc")


def _check_replaceable(path: Path) -> None:
    """Refuses to replace a file or folder that is no posterior of ours."""
    if path.exists() and not (path.is_dir() and _read(path).attrs.get("format") == FORMAT):
        raise InputError(
            f"{path}: expected no such file, or a posterior to replace, got something else"
        )


def _made_anew(path: Path, description: dict[str, Any]) -> PreferenceModel:
    from cqbayes.preference import model_factory

    name, settings = description.get("name"), description.get("settings")
    if not name or not isinstance(settings, dict):
        raise InputError(f"{path}: the model has no name; pass the fitted model as model=...")

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            return _made_anew(path, value)
        return tuple(map(value_of, value)) if isinstance(value, list) else value

    try:
        return model_factory(name)(**{key: value_of(v) for key, v in settings.items()})
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: {name} of this version refuses the settings in the file; pass model=..."
        ) from None


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
    """Refuses coordinates other than those of the model, and names other than the expected ones."""
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
    # F F^T is positive definite if F's least singular value is not 0. F is less rounded than F F^T.
    singular = np.linalg.svd(np.asarray(factor, np.float64), compute_uv=False)
    if not (singular[..., -1] > np.finfo(np.float32).eps * singular[..., 0]).all():
        raise InputError(
            f"{where}: expected a covariance that is positive definite; the fit has failed"
        )


def _check_varies(where: str, posterior: Draws) -> None:
    """Refuses draws that do not vary in a parameter, or in a direction of the parameter space.

    A model's ``canonical`` may hold some parameters and directions fixed. To find them, it is
    applied to normal vectors: draws must vary wherever the results vary. Directions are checked if
    there are more distinct draws than parameters.
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
            f"{where}: expected draws that vary, got {stuck} of {len(free)} parameters with the "
            "same value in all draws; the fit has failed"
        )
    if len(draws) > len(free) and _rank(draws) < rank:
        raise InputError(
            f"{where}: expected draws with a covariance that is positive definite, got draws that "
            f"vary in {_rank(draws)} of {rank} directions only; the fit has failed"
        )


def _rank(draws: np.ndarray) -> int:
    """Rank of the correlation matrix of draws ``[draw, parameter]``."""
    centred = draws - draws.mean(axis=0)
    deviation = centred.std(axis=0)
    singular = np.linalg.svd(centred / np.where(deviation > 0, deviation, 1), compute_uv=False)
    return int(np.sum(singular > np.finfo(np.float32).eps * singular[0]))
