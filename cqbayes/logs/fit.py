"""From a log to a fitted preference model in one call: :func:`fit`.

::

    log -> turns -> services -> choice data -> posterior

A log that already is a long table of services, or choice data, enters further on. Text becomes
contexts by a sentence encoder and principal components of the log's own queries. Where outcomes
were inferred, the model is put into ``misclassified``, with the detector's estimated error rates as
priors, so that the posterior knows that labels err.

The last turn of a session, to which nothing can be compared, is left out unless it shows what came
of it: taking it for an answer that was taken would hide the users who leave in silence, and its
error rates are not the detector's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import xarray as xr

from cqbayes.inference.infer import infer
from cqbayes.logs.read import Log, read_log
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.posteriors import Posterior
from cqbayes.predict.predictions import acceptance, new_queries
from cqbayes.preference import PreferenceModel, load_model, model_factory


class Fitted(NamedTuple):
    """A preference model fitted to a log, and what its engine says of the posterior."""

    log: Log
    posterior: Posterior
    info: InferenceInfo

    def acceptance(self, context: Any = None, *, seed: int = 0, **options: Any) -> xr.Dataset:
        """How probably users take each LLM's answer, were it the only one.

        Args:
            context: of new queries ``[query, dim]``; those of the log where absent.
            seed: decides the draws.
            options: others of :func:`cqbayes.new_queries` (columns that the model needs) and
                :func:`cqbayes.predict.predictions.acceptance`.
        """
        columns = ("attributes", "user", "attempt", "time")
        given = {name: options.pop(name) for name in columns if name in options}
        if context is None:
            at = self.log.data.only(self.posterior.model.needs).situation
        else:
            at = new_queries(self.posterior, context, **given)
        options.setdefault("llms", list(self.log.llms))
        return acceptance(jax.random.key(seed), self.posterior, at, **options)


def fit(
    log: str | Path | Sequence[str | Path],
    *,
    model: str | PreferenceModel = "disjoint_mnl",
    engine: str = "auto",
    seed: int = 0,
    trust_labels: bool = False,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Fits a preference model to a log.

    Args:
        log: as in :func:`read_log`.
        model: a file of ``models/``, or a model.
        engine: as in :func:`cqbayes.infer`.
        seed: decides all randomness.
        trust_labels: whether inferred outcomes are taken for what users did. Otherwise, where there
            are any, the model is put into :mod:`cqbayes.models.misclassified`.
        settings: the engine's own.
        options: others of :func:`read_log`.

    Returns:
        What was fitted: look at ``fitted.info.ok`` and ``fitted.log.notes``.

    Raises:
        InputError: as :func:`read_log` and :func:`cqbayes.infer` do.

    Example:
        >>> import pathlib, tempfile
        >>> from cqbayes import TextOptions
        >>> rows = ['{"query_id": "%d", "attempt": 1, "offered": ["a", "b"], "chosen": %s}' % pair
        ...         for pair in enumerate(['"a"', '"b"', "null", '"a"'])]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "log.jsonl"
        ...     _ = path.write_text("\\n".join(rows))
        ...     fitted = fit(path, engine="laplace", text=TextOptions(encoder="constant"))
        >>> fitted.log.llms, fitted.log.data.choice.tolist()
        (('a', 'b'), [1, 2, 0, 1])
    """
    chosen = load_model(model) if isinstance(model, str) else model
    found = read_log(log, **options)
    if not trust_labels:
        chosen = with_label_errors(chosen, found)
    return fit_to(found, chosen, engine=engine, seed=seed, **(settings or {}))


def fit_to(
    log: Log, model: PreferenceModel, *, engine: str = "auto", seed: int = 0, **settings: Any
) -> Fitted:
    """Fits a model to a log that was read, as it is."""
    key = jax.random.key(seed)
    return Fitted(log, *infer(key, model, log.data, engine=engine, **settings))


def with_label_errors(model: PreferenceModel, log: Log) -> PreferenceModel:
    """The model put into ``misclassified`` where outcomes of the log were inferred.

    Its priors are ``log.errors``, where those are known, and its own defaults where they are not.
    """
    if not log.inferred or model.name == "misclassified":
        return model
    priors = {}
    if log.errors is not None:
        priors = {"recognised": log.errors.recognised, "specificity": log.errors.specificity}
    return model_factory("misclassified")(base=model, **priors)
