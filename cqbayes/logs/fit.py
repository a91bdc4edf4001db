"""From a log to a fitted preference model in one call: :func:`fit`.

::

    log -> requests -> turns -> services -> choice data -> posterior

A log that already is a long table of services, or choice data, enters further on. Text becomes
contexts by a sentence encoder and principal components of the log's own queries.

**The default model** is ``disjoint_mnl``, with a common level of the LLMs where next requests are
scored, since that is what such logs hardly tell, and an effect of the attempt (``attempt_mnl``)
where queries repeat: those that are asked again are the harder ones, and would otherwise make all
LLMs look worse. What the log shows of outcomes is a channel around it, and around any other model:
``next_request`` where a detector scored next requests in other words, with the rates at which the
unhappy leave, ask again plainly or in other words, and the content go on, learnt from the log;
``abandonment`` where only the outcome of last turns is not known; ``misclassified`` where a table
says that outcomes were inferred.

What is said of queries is averaged over queries, one row each, at their first attempt.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer import Predictive

from cqbayes.choice.data import SILENCE, ChoiceData
from cqbayes.diagnostics.data_verdict import DataVerdict, judge
from cqbayes.inference.infer import infer
from cqbayes.logs.read import Log, TurnOptions, read_log
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.posteriors import Posterior
from cqbayes.predict.predictions import acceptance, new_queries, shares
from cqbayes.preference import PreferenceModel, load_model, model_factory

DEFAULT = "default"
# The sd of an angle whose squared sine is the rate: a quarter of the unhappy leave, give or take;
# all is possible, and that nobody leaves too. The rates are learnt where acceptance differs.
LEAVES = 0.6
GOES_ON = (1.0, 1.0)
LEVEL_SD = 1.8  # of the log-odds of a share: about uniform, from 0.05 to 0.95 for nine in ten
RATES = ("leaves", "hides", "goes_on")  # those of a detector have priors that know something
CHANNELS = ("abandonment", "next_request")  # in which the outcome of silence is left open
DRAWS_OF_RATES, ROWS_OF_RATES = 1_000, 10_000
ROWS = 256  # to a multiple of which rows are filled up, so that less is compiled
WHOLE = ("auto", "laplace", "hmc", "nuts")  # engines for which rows have no order


class Fitted(NamedTuple):
    """A preference model fitted to a log, and what is to be said of the fit.

    Attributes:
        log: what was fitted to.
        posterior: of the model's parameters.
        info: the engine's report on the posterior.
        data: the verdict on the data.
    """

    log: Log
    posterior: Posterior
    info: InferenceInfo
    data: DataVerdict

    @property
    def ok(self) -> bool:
        """Whether neither the engine nor the data give reason for doubt."""
        return self.info.ok and self.data.ok

    def acceptance(
        self, context: Any = None, *, fresh: bool = True, seed: int = 0, **options: Any
    ) -> xr.Dataset:
        """How probably users take each LLM's answer, were it the only one.

        Args:
            context: of new queries ``[query, dim]``; those of the log where absent.
            fresh: whether the log's queries count once each, at their first attempt; otherwise each
                of the log's services counts, so that queries count more the harder they are.
            seed: decides the draws.
            options: others of :func:`cqbayes.new_queries` (columns that the model needs) and
                :func:`cqbayes.predict.predictions.acceptance`.
        """
        columns = ("attributes", "user", "attempt", "time", "failures")
        given = {name: options.pop(name) for name in columns if name in options}
        if context is None:
            at = self.log.data.only(self.posterior.model.needs).situation
            if fresh:
                rows = self.log.first_attempts
                at = jax.tree.map(lambda column: column[rows], at)
                if at.attempt is not None:
                    at = at._replace(attempt=jnp.ones_like(at.attempt))
                if at.failures is not None:
                    at = at._replace(failures=jnp.zeros_like(at.failures))
        else:
            if "attempt" in self.posterior.model.needs:
                given.setdefault("attempt", np.ones(len(context), int))
            at = new_queries(self.posterior, context, **given)
        options.setdefault("llms", list(self.log.llms))
        return acceptance(jax.random.key(seed), self.posterior, at, **options)

    def bounds(self, *, seed: int = 0) -> xr.Dataset | None:
        """Acceptance of a fresh query if unknown outcomes all were one thing, by ``laplace``.

        Returns:
            As :meth:`acceptance`, along a dimension ``silence`` of ``taken``, ``not taken`` and
            ``dropped``, which are the three biased special cases; None where no outcome is unknown.
        """
        choice = np.asarray(self.log.data.choice)
        silent = choice == SILENCE
        if not silent.any():
            return None
        shown = np.argmax(np.asarray(self.log.data.offered), axis=1) + 1
        weight = np.asarray(self.log.data.weight)
        cases = {
            "taken": (np.where(silent, shown, choice), weight),
            "not taken": (np.where(silent, 0, choice), weight),
            "dropped": (np.where(silent, 0, choice), np.where(silent, 0, weight)),
        }
        bare = _bare(self.posterior.model)
        found = []
        for recoded, weights in cases.values():
            if not (weights > 0).any():
                continue
            data = dataclasses.replace(
                self.log.data, choice=jnp.asarray(recoded), weight=jnp.asarray(weights)
            )
            log = self.log._replace(data=data)
            case = fit_to(log, model_for(log, bare), engine="laplace", seed=seed)
            found.append(case.acceptance(seed=seed)[["overall_mean", "overall_interval"]])
        whole: Any = xr.concat(found, xr.DataArray(list(cases)[: len(found)], dims="silence"))
        return whole


def fit(
    log: str | Path | Sequence[str | Path],
    *,
    model: str | PreferenceModel = DEFAULT,
    engine: str = "auto",
    seed: int = 0,
    trust_labels: bool = False,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Fits a preference model to a log.

    Args:
        log: as in :func:`read_log`.
        model: a file of ``models/``, a model, or ``default``: see :func:`default_model`.
        engine: as in :func:`cqbayes.infer`.
        seed: decides all randomness.
        trust_labels: whether inferred outcomes are taken for what users did. Otherwise the model is
            put into :mod:`cqbayes.models.next_request`, or :mod:`cqbayes.models.misclassified` for
            a table that has inferred ones.
        settings: the engine's own.
        options: others of :func:`read_log`.

    Returns:
        What was fitted: look at ``fitted.ok``, ``fitted.info`` and ``fitted.data``.

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
        >>> [found.name for found in fitted.data.doubts]
        ['few_rows']
    """
    if trust_labels:
        turns = options.get("turns", TurnOptions())
        if turns.signs == "scored":
            options["turns"] = turns._replace(signs="threshold")
    found = read_log(log, **options)
    chosen = model_for(found, model, trust_labels=trust_labels)
    return fit_to(found, chosen, engine=engine, seed=seed, **(settings or {}))


def fit_to(
    log: Log, model: PreferenceModel, *, engine: str = "auto", seed: int = 0, **settings: Any
) -> Fitted:
    """Fits a model to a log that was read, as it is."""
    data = log.data.only(model.needs)
    if log.next_requests is not None and "next_request" in _names(model):
        data = log.next_requests.with_opening(data)
    if engine in WHOLE:
        data = data.merged(multiple=ROWS)
    posterior, info = infer(jax.random.key(seed), model, data, engine=engine, **settings)
    facts = log.facts._replace(
        rates=learnt_rates(posterior), hidden_retries=hidden_retries(posterior, log.data)
    )
    return Fitted(log, posterior, info, judge(facts))


def default_model(log: Log) -> PreferenceModel:
    """``disjoint_mnl``, with an effect of the attempt where queries of the log repeat.

    Where next requests are scored, how often answers are taken at all is what the log hardly tells:
    there the intercepts have a level in common, with a prior under which all of it is possible.
    """
    plain = load_model("disjoint_mnl")
    if log.is_scored:
        plain = model_factory("disjoint_mnl")(intercept_sd=1.0, level_sd=LEVEL_SD)
    return model_factory("attempt_mnl")(base=plain) if log.repeats else plain


def model_for(
    log: Log, model: str | PreferenceModel = DEFAULT, *, trust_labels: bool = False
) -> PreferenceModel:
    """A model inside the channels through which the log shows what users do.

    Args:
        log: what is to be fitted.
        model: a file of ``models/``, a model, or ``default``.
        trust_labels: whether inferred outcomes are taken for what users did.
    """
    if isinstance(model, str):
        model = default_model(log) if model == DEFAULT else load_model(model)
    choice = np.asarray(log.data.choice)
    if (choice < -model.signs).any():
        if log.is_scored:
            assert log.next_requests is not None
            model = model_factory("next_request")(
                base=model,
                leaves=LEAVES,
                hides=LEAVES,
                shows_retries=bool((choice == 0).any()),
                shows_acceptances=bool((choice > 0).any()),
                **log.next_requests.settings(),
            )
        else:
            model = model_factory("abandonment")(base=model, leaves=LEAVES, goes_on=GOES_ON)
    if log.inferred and not trust_labels and "misclassified" not in _names(model):
        model = model_factory("misclassified")(base=model)
    return model


def hidden_retries(posterior: Posterior, data: ChoiceData) -> float | None:
    """How many services, in the mean, users asked for again in other words; None if not known."""
    sites = posterior.sites(jax.random.key(0), DRAWS_OF_RATES)
    if "asks_otherwise" not in sites:
        return None
    some = slice(None, None, -(-data.num_obs // ROWS_OF_RATES))
    only = jax.tree.map(lambda column: column[some], data.only(posterior.model.needs))
    done = shares(jax.random.key(1), posterior, only.situation, only.offered)
    retried = float(done["overall_mean"].sel(outcome="retry"))
    return float(np.mean(sites["asks_otherwise"])) * retried * data.num_obs


def learnt_rates(posterior: Posterior) -> tuple[tuple[str, float, float], ...]:
    """Each rate of the channels around a model: its name, its prior sd and its posterior sd."""
    before = _draws_of_prior(posterior)
    after = posterior.sites(jax.random.key(0), DRAWS_OF_RATES)
    return tuple(
        (name, float(np.std(before[name])), float(np.std(after[name])))
        for name in RATES
        if name in before
    )


def _draws_of_prior(posterior: Posterior) -> dict[str, Any]:
    prior = Predictive(posterior.model.prior, num_samples=DRAWS_OF_RATES)
    return prior(jax.random.key(1), posterior.sizes)


def _layers(model: PreferenceModel) -> list[PreferenceModel]:
    """A model and those inside it, the outermost first."""
    inside = dict(model.settings).get("base")
    return [model, *(_layers(inside) if isinstance(inside, PreferenceModel) else [])]


def _names(model: PreferenceModel) -> list[str]:
    return [layer.name for layer in _layers(model)]


def _bare(model: PreferenceModel) -> PreferenceModel:
    """The same model without the channels in which silence is left open."""
    settings = dict(model.settings)
    inside = settings.get("base")
    if not isinstance(inside, PreferenceModel):
        return model
    inside = _bare(inside)
    if model.name in CHANNELS:
        return inside
    return model_factory(model.name)(**{**settings, "base": inside})
