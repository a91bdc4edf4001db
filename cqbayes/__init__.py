"""Bayesian preference models of user retrials, and queueing bandits that route and schedule LLMs.

All that users need is here, by one name each. Names are imported when they are first used, so that
``import cqbayes`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "_tools.figure": "save_figure",
    "_tools.files": "replacing writable_folder write_netcdf",
    "_tools.progress": "progress_bar",
    "_tools.provenance": "provenance",
    "choice.data": "choice_data ChoiceData Situation",
    "choice.mnl": "departure_probability MNL",
    "datasets.contexts": "contexts",
    "datasets.files": "data_folder data_set_names",
    "datasets.load": "load_scores load_text_scores",
    "datasets.score_table": "ScoreTable",
    "datasets.text_scores": "TextScores",
    "diagnostics.reliability": "reliability",
    "diagnostics.summary": "agreement summary",
    "embeddings.encoder": "embed Encoder load_encoder",
    "embeddings.projection": "load_projection save_projection",
    "environments.best_linear": "with_best_linear",
    "environments.environment": "Action Environment Observation Population Query",
    "environments.load": "capacity check_stable",
    "environments.queue": "retrial_queue",
    "environments.rules": "Arrivals Rules",
    "environments.scores": "from_scores",
    "environments.synthetic": "synthetic",
    "environments.traffic": "arrivals_from_trace block_bootstrap read_trace",
    "errors": "InputError scripts_end_in_one_line",
    "inference.engine": "Engine",
    "inference.infer": "engine_names infer load_engine",
    "inference.sharding": "shard_rows",
    "logs.choice_files": "read_choices write_choices",
    "logs.choices": "choice_data_of codes_of minibatches",
    "logs.fit": "fit Fitted",
    "logs.label": "label",
    "logs.formats.importer": "importer_names load_importer",
    "logs.retrials.labels": "read_labels",
    "logs.read": "Log read_log TableOptions TextOptions TurnOptions",
    "logs.table.services": "read_services",
    "offpolicy.counterfactual": "posterior_population simulate_policies",
    "offpolicy.estimators": "doubly_robust ips logged_actions replay snips",
    "offpolicy.propensities": "thompson_propensities",
    "policies": "belief",
    "policies.acqb": "acqb",
    "policies.best_single": "best_single",
    "policies.beta_thompson": "beta_thompson",
    "policies.cqb_eps": "cqb_eps",
    "policies.cqb_eta": "cqb_eta",
    "policies.cqb_opt": "cqb_opt",
    "policies.epsilon_greedy": "epsilon_greedy",
    "policies.greedy": "greedy",
    "policies.linear_oracle": "linear_oracle",
    "policies.linucb": "linucb",
    "policies.oracle": "oracle",
    "policies.policy": "Policy",
    "policies.q_ths": "q_ths",
    "policies.random": "random",
    "policies.setup": "load_policy policy_names Setup",
    "policies.thompson": "thompson",
    "policies.ts_qmb": "ts_qmb",
    "policies.ucb_mnl": "ucb_mnl",
    "policies.ucb_qmb": "ucb_qmb",
    "policies.vary": "vary",
    "policies.wrappers.aging": "aging",
    "policies.wrappers.escalate": "escalate",
    "policies.wrappers.explore": "explore inverse_root",
    "policies.wrappers.fifo": "fifo",
    "policies.wrappers.max_wait": "max_wait",
    "policies.wrappers.refit": "doubling every refit",
    "policies.wrappers.switch": "switch",
    "posterior.info": "InferenceInfo Status",
    "posterior.posteriors": "Posterior",
    "posterior.storage": "load_posterior save_posterior",
    "predict.new_llm": "with_new_llm",
    "predict.predictions": "acceptance Interval new_queries shares what_if",
    "preference": "load_model model_factory model_names PreferenceModel program Sizes sizes_of",
    "simulation.checkpoint": "Checkpoint",
    "simulation.comparison": "compare_policies comparison_table thinned World",
    "simulation.loop": "simulate Trace",
    "simulation.policy_switching": "policy_switching",
    "simulation.regret": "growth_exponent over_seeds performance regrets",
    "sweep.results": "read_results",
    "sweep.run": "run_sweep",
    "sweep.settings": "read_sweep",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from cqbayes._tools.figure import save_figure
    from cqbayes._tools.files import replacing, writable_folder, write_netcdf
    from cqbayes._tools.progress import progress_bar
    from cqbayes._tools.provenance import provenance
    from cqbayes.choice.data import ChoiceData, Situation, choice_data
    from cqbayes.choice.mnl import MNL, departure_probability
    from cqbayes.datasets.contexts import contexts
    from cqbayes.datasets.files import data_folder, data_set_names
    from cqbayes.datasets.load import load_scores, load_text_scores
    from cqbayes.datasets.score_table import ScoreTable
    from cqbayes.datasets.text_scores import TextScores
    from cqbayes.diagnostics.reliability import reliability
    from cqbayes.diagnostics.summary import agreement, summary
    from cqbayes.embeddings.encoder import Encoder, embed, load_encoder
    from cqbayes.embeddings.projection import load_projection, save_projection
    from cqbayes.environments.best_linear import with_best_linear
    from cqbayes.environments.environment import Action, Environment, Observation, Population, Query
    from cqbayes.environments.load import capacity, check_stable
    from cqbayes.environments.queue import retrial_queue
    from cqbayes.environments.rules import Arrivals, Rules
    from cqbayes.environments.scores import from_scores
    from cqbayes.environments.synthetic import synthetic
    from cqbayes.environments.traffic import arrivals_from_trace, block_bootstrap, read_trace
    from cqbayes.errors import InputError, scripts_end_in_one_line
    from cqbayes.inference.engine import Engine
    from cqbayes.inference.infer import engine_names, infer, load_engine
    from cqbayes.inference.sharding import shard_rows
    from cqbayes.logs.choice_files import read_choices, write_choices
    from cqbayes.logs.choices import choice_data_of, codes_of, minibatches
    from cqbayes.logs.fit import Fitted, fit
    from cqbayes.logs.formats.importer import importer_names, load_importer
    from cqbayes.logs.label import label
    from cqbayes.logs.read import Log, TableOptions, TextOptions, TurnOptions, read_log
    from cqbayes.logs.retrials.labels import read_labels
    from cqbayes.logs.table.services import read_services
    from cqbayes.offpolicy.counterfactual import posterior_population, simulate_policies
    from cqbayes.offpolicy.estimators import doubly_robust, ips, logged_actions, replay, snips
    from cqbayes.offpolicy.propensities import thompson_propensities
    from cqbayes.policies import belief
    from cqbayes.policies.acqb import acqb
    from cqbayes.policies.best_single import best_single
    from cqbayes.policies.beta_thompson import beta_thompson
    from cqbayes.policies.cqb_eps import cqb_eps
    from cqbayes.policies.cqb_eta import cqb_eta
    from cqbayes.policies.cqb_opt import cqb_opt
    from cqbayes.policies.epsilon_greedy import epsilon_greedy
    from cqbayes.policies.greedy import greedy
    from cqbayes.policies.linear_oracle import linear_oracle
    from cqbayes.policies.linucb import linucb
    from cqbayes.policies.oracle import oracle
    from cqbayes.policies.policy import Policy
    from cqbayes.policies.q_ths import q_ths
    from cqbayes.policies.random import random
    from cqbayes.policies.setup import Setup, load_policy, policy_names
    from cqbayes.policies.thompson import thompson
    from cqbayes.policies.ts_qmb import ts_qmb
    from cqbayes.policies.ucb_mnl import ucb_mnl
    from cqbayes.policies.ucb_qmb import ucb_qmb
    from cqbayes.policies.vary import vary
    from cqbayes.policies.wrappers.aging import aging
    from cqbayes.policies.wrappers.escalate import escalate
    from cqbayes.policies.wrappers.explore import explore, inverse_root
    from cqbayes.policies.wrappers.fifo import fifo
    from cqbayes.policies.wrappers.max_wait import max_wait
    from cqbayes.policies.wrappers.refit import doubling, every, refit
    from cqbayes.policies.wrappers.switch import switch
    from cqbayes.posterior.info import InferenceInfo, Status
    from cqbayes.posterior.posteriors import Posterior
    from cqbayes.posterior.storage import load_posterior, save_posterior
    from cqbayes.predict.new_llm import with_new_llm
    from cqbayes.predict.predictions import Interval, acceptance, new_queries, shares, what_if
    from cqbayes.preference import (
        PreferenceModel,
        Sizes,
        load_model,
        model_factory,
        model_names,
        program,
        sizes_of,
    )
    from cqbayes.simulation.checkpoint import Checkpoint
    from cqbayes.simulation.comparison import World, compare_policies, comparison_table, thinned
    from cqbayes.simulation.loop import Trace, simulate
    from cqbayes.simulation.policy_switching import policy_switching
    from cqbayes.simulation.regret import growth_exponent, over_seeds, performance, regrets
    from cqbayes.sweep.results import read_results
    from cqbayes.sweep.run import run_sweep
    from cqbayes.sweep.settings import read_sweep


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cqbayes' has no attribute {name!r}")
    home = importlib.import_module(f"cqbayes.{_HOME_OF[name]}")
    if not hasattr(home, name):  # a module of that room
        return importlib.import_module(f"{home.__name__}.{name}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
