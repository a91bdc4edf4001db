"""Wrong labels of retrials, simulated: the clean model is biased, the misclassified one covers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.misclassified import misclassified, priors_from_labels
from recovery import draw, linear_utilities, log_shares, services
from reference import disjoint_draws
from scipy import stats

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import load_engine

NUM_LOGS, NUM_OBS, NUM_LLMS, DIM, LABELLED = 48, 600, 3, 2, 300
LEVEL = 0.9


def labelled(wrong):
    """What is known of a detector whose labels are wrong so often, of labelled conversations."""
    right = round((1 - wrong) * LABELLED)
    return priors_from_labels(right, LABELLED, right, LABELLED)


def mislabelled(seed, wrong):
    """Logs, and the users' parameters ``[log, parameter]``, drawn from the model's prior.

    How often labels are wrong is in no log what the detector's labelled set says, but as far from
    it as that leaves open. At 0 none are.
    """
    rng, priors = np.random.default_rng(seed), labelled(wrong)
    logs, truths = [], []
    for _ in range(NUM_LOGS):
        sites = {
            "intercept": 1.5 * rng.normal(size=NUM_LLMS),
            "theta": 2.0 * rng.normal(size=(NUM_LLMS, DIM)),
        }
        recognised, kept = (rng.beta(*priors[name]) for name in ("recognised", "specificity"))
        if wrong == 0:
            recognised, kept = 1.0, 1.0
        hit = 1 - kept * (1 - recognised)
        context, offered = services(rng, NUM_OBS, NUM_LLMS, DIM, 2)
        choice = draw(rng, log_shares(linear_utilities(sites, context), offered))
        # Label by label, not by the probabilities of labels that the model computes.
        missed = (choice == 0) & (rng.random(NUM_OBS) >= hit)
        mistaken = (choice > 0) & (rng.random(NUM_OBS) >= kept)
        anyone = np.where(offered, rng.random(offered.shape), -1).argmax(axis=1) + 1
        seen = np.where(missed, anyone, np.where(mistaken, 0, choice))
        logs.append(choice_data(context, offered, seen))
        truths.append(np.concatenate([sites["intercept"], sites["theta"].ravel()]))
    return logs, np.array(truths)


def clean(logs):
    """Draws ``[log, draw, parameter]`` that take labels at face value."""
    drawn = [disjoint_draws(log, 1_000, prior_sd=2.0) for log in logs]
    return np.array(
        [np.concatenate([w[..., 0], w[..., 1:].reshape(len(w), -1)], axis=-1) for w in drawn]
    )


def aware(logs, model):
    """The same of a model that knows labels to err: all logs in one compiled HMC."""
    together = jax.tree.map(lambda *columns: jnp.stack(columns), *logs)
    fit = load_engine("hmc").fit

    def one(key, log):
        posterior, info = fit(key, model, log, num_chains=2, num_draws=300)
        sites = posterior.sites(key, 1)
        return sites, info.status

    sites, status = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), len(logs)), together)
    assert (np.asarray(status) == 0).all()
    parts = [np.asarray(sites[name]).reshape(len(logs), 600, -1) for name in ("intercept", "theta")]
    return np.concatenate(parts, axis=-1)


def coverage(draws, truths):
    """Of equal-tailed intervals, in binomial standard errors of as many logs from ``LEVEL``.

    Parameters of a log are correlated: they count as one, on average. Logs are independent.
    """
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=1)
    inside = np.mean((low < truths) & (truths < high), axis=1)
    return inside.mean(), (inside.mean() - LEVEL) / np.sqrt(LEVEL * (1 - LEVEL) / len(inside))


def shrinkage(draws, truths):
    """How much too close to 0 posterior means are, in standard errors over logs.

    ``sign(mean) (truth - mean) / sd`` has mean 0 under a calibrated posterior, whatever the data.
    """
    mean, sd = draws.mean(axis=1), draws.std(axis=1)
    each = np.mean(np.sign(mean) * (truths - mean) / sd, axis=1)
    return each.mean() / (each.std(ddof=1) / np.sqrt(len(each)))


def scores(draws, truths):
    (share, z), bias = coverage(draws, truths), shrinkage(draws, truths)
    print(f"coverage {share:.3f} of {LEVEL} ({z:+.1f} se), too close to 0 by {bias:+.1f} se")
    return z, bias


def test_labels_that_are_right_leave_the_clean_model_calibrated():
    logs, truths = mislabelled(1, 0.0)
    z, bias = scores(clean(logs), truths)
    assert abs(z) < 3
    assert abs(bias) < 3


@pytest.mark.parametrize("wrong", [0.1, 0.2])
def test_few_wrong_labels_bias_the_clean_model(wrong):
    logs, truths = mislabelled(2, wrong)
    z, bias = scores(clean(logs), truths)
    assert z < -4
    assert bias > 4


@pytest.mark.slow
@pytest.mark.long
def test_where_a_third_is_wrong_the_model_that_knows_it_covers(disjoint_mnl):
    wrong = 0.3
    logs, truths = mislabelled(3, wrong)
    z, bias = scores(clean(logs), truths)
    assert z < -8
    assert bias > 8
    model = misclassified(disjoint_mnl(prior_sd=2.0), **labelled(wrong))
    z, bias = scores(aware(logs, model), truths)
    assert abs(z) < 3
    assert abs(bias) < 3


def test_priors_are_those_of_labelled_conversations():
    counts = (280, 300, 150, 200)
    found, retries, kept, acceptances = counts
    rng = np.random.default_rng(0)
    c = rng.beta(found + 1, retries - found + 1, 200_000)
    d = rng.beta(kept + 1, acceptances - kept + 1, c.size)
    r = 1 - (1 - c) / d
    priors = priors_from_labels(*counts)
    assert priors["specificity"] == (151.0, 51.0)
    law = stats.beta(*priors["recognised"])
    error = r.std() / np.sqrt(r.size)
    assert abs(law.mean() - r.mean()) < 4 * error
    assert law.std() == pytest.approx(r.std(), rel=0.01)
    for level in (0.05, 0.95):
        assert law.cdf(np.quantile(r, level)) == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((3, 2, 1, 4), "got 3 of 2 and 1 of 4"),
        ((1, 2, 0, 4), "expected enough labels to show"),
        ((1, 1, 2, 2), "expected enough labels to show"),
        ((10, 100, 50, 100), "got 10 of 100 and 50 of 100"),
    ],
)
def test_labels_that_say_nothing(counts, message):
    with pytest.raises(InputError, match=message):
        priors_from_labels(*counts)
