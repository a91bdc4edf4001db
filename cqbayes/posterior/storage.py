"""Posteriors on disk: NetCDF or Zarr files that any ArviZ tool reads, checked when they are loaded.

A file holds the groups of :func:`cqbayes.posterior.datatree.to_datatree` and a group ``state`` with
the posterior's own arrays: a loaded posterior gives exactly the draws of the saved one. The file's
attributes hold the model's name and settings, the engine's report, versions, the seed, what is said
of the data, and a SHA-256 of all names and numbers.

A group ``services`` keeps a few columns of the data that were fitted, one row per service, for
later checks of what would be routed by the posterior:

==============  ====================================================================================
``query``       int32: services with the same number are of one query
``attempt``     int32: 1 for a query's first service, 2 for the next, ...
``offered``     bool ``[obs, llm]``: whose answers were shown
``chosen``      int32: 0 for a retry, ``j + 1`` for the answer of LLM ``j``, ``-k`` for sign ``k``
``propensity``  float64: probability with which query and assortment were picked; NaN where unknown
``time``        int64: seconds since 1970, UTC; -1 where unknown
``user``        int32: services with the same number are of one user; -1 where unknown
``split``       int8: 0 for rows that were fitted, others for rows that were held out
==============  ====================================================================================

There is no text in it. A column that is not known is not there.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cqbayes._tools.files import replacing_folder, write_netcdf
from cqbayes._tools.provenance import provenance
from cqbayes._tools.tables import refuse
from cqbayes.choice.data import MOST_SIGNS, ChoiceData
from cqbayes.errors import InputError
from cqbayes.posterior.datatree import coordinates, to_datatree
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.online_gaussian import OnlineGaussian
from cqbayes.posterior.posteriors import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, Sizes, layout

FORMAT = "cqbayes posterior 2"
MOST_BYTES = 8 * 2**30  # a file that unpacks to more is refused before it is read
_KINDS = {kind.__name__: kind for kind in (Gaussian, Draws, OnlineGaussian)}
_SIGNED = (
    *("format", "kind", "model", "sizes", "llms", "engine", "status", "reason", "stats"),
    *("versions", "seed", "verdict"),
)
SERVICES = "services"  # the group
_ROW = ("obs",)
COLUMNS: dict[str, tuple[type, tuple[str, ...]]] = {
    "query": (np.int32, _ROW),
    "attempt": (np.int32, _ROW),
    "offered": (np.bool_, (*_ROW, "llm")),
    "chosen": (np.int32, _ROW),
    "propensity": (np.float64, _ROW),
    "time": (np.int64, _ROW),
    "user": (np.int32, _ROW),
    "split": (np.int8, _ROW),
}
_LEAST = {"query": 0, "attempt": 1, "chosen": -MOST_SIGNS, "time": -1, "user": -1, "split": 0}
_COMPRESSED = {"zlib": True, "complevel": 4, "shuffle": True}
_FAILED = (Status.NOT_FINITE, Status.NOT_POSITIVE_DEFINITE)  # the posterior is a mere stand-in


class Stored(NamedTuple):
    """A posterior from disk, as :func:`load_posterior` returns it.

    Attributes:
        posterior: gives the same draws as the saved posterior.
        info: the engine's report.
        tree: all groups, for ArviZ.
        verdict: what is said of the data, as it was given to :func:`save_posterior`, such as
            :meth:`cqbayes.diagnostics.data_verdict.DataVerdict.from_dict` takes it; or None.
        columns: those of the services that were kept, see :mod:`cqbayes.posterior.storage`; or
            None.
    """

    posterior: Posterior
    info: InferenceInfo
    tree: Any
    verdict: dict[str, Any] | None = None
    columns: Any = None


def save_posterior(
    path: str | Path,
    posterior: Posterior,
    info: InferenceInfo,
    *,
    data: ChoiceData | None = None,
    llms: list[str] | None = None,
    seed: int | None = None,
    verdict: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
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
        verdict: what is said of the data, in types that JSON has.
        columns: of the services that were fitted, by the names above, to be kept with it.
        options: further arguments of :func:`cqbayes.posterior.datatree.to_datatree`.

    Returns:
        The ``DataTree`` that was written.

    Raises:
        InputError: for a posterior, a verdict or columns that :func:`load_posterior` would refuse.

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
    services = None if columns is None else _services(columns, posterior.sizes.num_llms)
    said = None if verdict is None else _plain_json(verdict)
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
    if said is not None:
        tree.attrs["verdict"] = said
    if services is not None:
        if path.suffix == ".nc":  # Zarr compresses by itself
            for column in services.variables.values():
                column.encoding = dict(_COMPRESSED)
        tree[SERVICES] = xr.DataTree(services)
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
            that is not positive definite, draws that do not vary, or columns of services that
            cannot be.
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
        verdict = json.loads(tree.attrs["verdict"]) if "verdict" in tree.attrs else None
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
    columns = None
    if SERVICES in tree.children:
        columns = tree[SERVICES].to_dataset()
        _check_services(str(path), columns, len(names))
        columns = columns.assign_coords(llm=names) if "llm" in columns.dims else columns
    info = InferenceInfo(engine, jnp.array(int(status)), stats, reason)
    return Stored(posterior, info, tree, verdict, columns)


def describe(model: PreferenceModel) -> dict[str, Any]:
    """A model's name and settings, in types that JSON has."""

    def plain(value: Any) -> Any:
        if isinstance(value, PreferenceModel):
            return describe(value)
        return [plain(v) for v in value] if isinstance(value, tuple | list) else value

    return {"name": model.name, "settings": {name: plain(v) for name, v in model.settings}}


def checksum(tree: Any) -> str:
    """SHA-256 of a file's contents: attributes, and of all variables names, dimensions and numbers.

    The order of dimensions counts, and whether a variable is a coordinate. That of variables does
    not: file formats do not keep it, and variables are found by name.
    """
    digest = hashlib.sha256()
    signed = {name: str(tree.attrs.get(name)) for name in _SIGNED}
    digest.update(json.dumps(signed, sort_keys=True).encode())
    for node in sorted(tree.subtree, key=lambda node: node.path):
        group = node.dataset
        for name in sorted(map(str, group.variables)):
            variable = group.variables[name]
            values = np.asarray(variable.values)
            if values.dtype.kind in "OUT":  # text, whose type depends on the file format
                values = np.frombuffer(json.dumps(values.tolist()).encode(), np.uint8)
            kind = "b" if values.dtype == bool else values.dtype.str
            place = [node.path, name, name in group.coords, list(map(str, variable.dims))]
            digest.update(json.dumps([*place, kind, values.shape]).encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _plain_json(verdict: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(verdict), allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(
            "verdict: expected a dictionary in types that JSON has, and finite numbers, got others"
        ) from None


def _services(columns: Mapping[str, Any], num_llms: int) -> Any:
    """The group of services, in the types of :data:`COLUMNS`."""
    import xarray as xr

    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise InputError(f"columns: expected some of {', '.join(COLUMNS)}, got {unknown[0]}")
    found = {}
    for name, values in columns.items():
        kind, dims = COLUMNS[name]
        given = cast = np.asarray(values)
        fits = given.dtype.kind in "biuf" and given.ndim == len(dims)
        if fits:
            with np.errstate(invalid="ignore"):
                cast = given.astype(kind)
            fits = np.array_equal(cast, given, equal_nan=kind is np.float64)
        if not fits:
            raise InputError(
                f"columns: expected {name} in {np.dtype(kind)} with {len(dims)} dimensions, got "
                f"{given.dtype} with {given.ndim}, or a value that is not of this type"
            )
        found[name] = (dims, cast)
    lengths = {name: len(values) for name, (_, values) in found.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"columns: expected one length, got {lengths}")
    made = xr.Dataset(found)
    _check_services("columns", made, num_llms)
    return made


def _check_services(where: str, columns: Any, num_llms: int) -> None:
    """Refuses columns of another type than those of :data:`COLUMNS`, and values that cannot be."""
    kinds = {str(n): (v.dtype.type, tuple(v.dims)) for n, v in columns.variables.items()}
    wrong = [name for name, kind in kinds.items() if COLUMNS.get(name) != kind]
    if wrong:
        raise InputError(f"{where}: expected services as save_posterior keeps them, not {wrong[0]}")
    if columns.sizes.get("llm", num_llms) != num_llms:
        raise InputError(f"{where}: expected offered for {num_llms} LLMs")
    values = {name: columns[name].values for name in kinds}
    for name, least in _LEAST.items():
        refuse(where, values.get(name, np.array([least])) < least, f"{name} of at least {least}")
    chosen = values.get("chosen", np.zeros(0, np.int32))
    refuse(where, chosen > num_llms, f"chosen of at most {num_llms}")
    picked = values.get("propensity", np.ones(0))
    refuse(where, (picked <= 0) | (picked > 1), "propensity in (0, 1]")
    if "offered" in values and len(chosen):
        shown = np.take_along_axis(values["offered"], np.maximum(chosen, 1)[:, None] - 1, axis=1)
        refuse(where, (chosen > 0) & ~shown[:, 0], "a chosen LLM that was offered")


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
