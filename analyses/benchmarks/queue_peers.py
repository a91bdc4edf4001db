"""The rivals of the simulator benchmark: the same queue and ACQB as others would write them.

All are for one seed; none of this is used by the package.
"""

import ciw
import numba
import numpy as np
import simpy


def _arrival(rng: np.random.Generator, dim: int) -> np.ndarray:
    x = rng.uniform(-1, 1, dim)
    return x / max(1.0, np.linalg.norm(x))


def plain_numpy(theta: np.ndarray, rounds: int, rate: float, seed: int, room: int = 64) -> float:
    """As research code has it: precision matrices, inverted in each round; mean queue length."""
    rng = np.random.default_rng(seed)
    num_llms, dim = theta.shape
    mean = np.zeros((num_llms, dim))
    precision = np.stack([np.eye(dim)] * num_llms)
    queue: list[np.ndarray] = []
    total = 0
    for t in range(1, rounds + 1):
        total += len(queue)
        if queue:
            if rng.random() < min(1.0, 0.5 / np.sqrt(t)):
                query, llm = rng.integers(len(queue)), rng.integers(num_llms)
            else:
                drawn = np.stack(
                    [
                        rng.multivariate_normal(mean[j], np.linalg.inv(precision[j]))
                        for j in range(num_llms)
                    ]
                )
                utility = np.stack(queue) @ drawn.T
                query, llm = np.unravel_index(np.argmax(utility), utility.shape)
            x = queue[query]
            taken = rng.random() < 1 / (1 + np.exp(-(x @ theta[llm])))
            share = 1 / (1 + np.exp(-(x @ mean[llm])))
            precision[llm] += share * (1 - share) * np.outer(x, x)
            mean[llm] += np.linalg.solve(precision[llm], x * (taken - share))
            if taken:
                queue.pop(query)
        if rng.random() < rate and len(queue) < room:
            queue.append(_arrival(rng, dim))
    return total / rounds


def tuned_numpy(theta: np.ndarray, rounds: int, rate: float, seed: int, room: int = 64) -> float:
    """By somebody who knows NumPy: square roots of covariances, one product for all draws."""
    rng = np.random.default_rng(seed)
    num_llms, dim = theta.shape
    mean = np.zeros((num_llms, dim))
    root = np.stack([np.eye(dim)] * num_llms)
    contexts = np.zeros((room, dim))
    length, total = 0, 0
    for t in range(1, rounds + 1):
        total += length
        if length:
            if rng.random() < 0.5 / np.sqrt(t):
                query, llm = rng.integers(length), rng.integers(num_llms)
            else:
                noise = rng.standard_normal((num_llms, dim, 1))
                drawn = mean + (root @ noise)[..., 0]
                query, llm = divmod(int(np.argmax(contexts[:length] @ drawn.T)), num_llms)
            x = contexts[query]
            taken = rng.random() < 1 / (1 + np.exp(-(x @ theta[llm])))
            share = 1 / (1 + np.exp(-(x @ mean[llm])))
            phi = x @ root[llm]
            weight = share * (1 - share)
            grown = 1 + weight * (phi @ phi)
            direction = root[llm] @ phi
            mean[llm] += direction * ((taken - share) / grown)
            shrink = weight / (grown + np.sqrt(grown))
            root[llm] -= np.multiply.outer(shrink * direction, phi)
            if taken:
                length -= 1
                contexts[query] = contexts[length]
        if rng.random() < rate and length < room:
            contexts[length] = _arrival(rng, dim)
            length += 1
    return total / rounds


@numba.njit(cache=False, fastmath=True)
def numba_loop(
    theta: np.ndarray, rounds: int, rate: float, seed: int, room: int
) -> float:  # pragma: no cover (compiled)
    """The tuned loop, compiled, in float32 as ours is; all sums written out."""
    np.random.seed(seed)  # noqa: NPY002  (numba has no generators of its own)
    num_llms, dim = theta.shape
    mean = np.zeros((num_llms, dim), np.float32)
    root = np.zeros((num_llms, dim, dim), np.float32)
    for j in range(num_llms):
        for k in range(dim):
            root[j, k, k] = 1.0
    contexts = np.zeros((room, dim), np.float32)
    drawn = np.zeros((num_llms, dim), np.float32)
    noise = np.zeros(dim, np.float32)
    phi = np.zeros(dim, np.float32)
    direction = np.zeros(dim, np.float32)
    length, total = 0, 0
    for t in range(1, rounds + 1):
        total += length
        if length > 0:
            if np.random.random() < 0.5 / np.sqrt(t):  # noqa: NPY002
                query, llm = np.random.randint(length), np.random.randint(num_llms)  # noqa: NPY002
            else:
                for j in range(num_llms):
                    for k in range(dim):
                        noise[k] = np.random.standard_normal()  # noqa: NPY002
                    for k in range(dim):
                        value = mean[j, k]
                        for i in range(dim):
                            value += root[j, k, i] * noise[i]
                        drawn[j, k] = value
                best = -np.inf
                query, llm = 0, 0
                for q in range(length):
                    for j in range(num_llms):
                        value = np.float32(0.0)
                        for k in range(dim):
                            value += contexts[q, k] * drawn[j, k]
                        if value > best:
                            best, query, llm = value, q, j
            truth, guess = np.float32(0.0), np.float32(0.0)
            for k in range(dim):
                truth += contexts[query, k] * theta[llm, k]
                guess += contexts[query, k] * mean[llm, k]
            taken = np.random.random() < 1 / (1 + np.exp(-truth))  # noqa: NPY002
            share = 1 / (1 + np.exp(-guess))
            weight = share * (1 - share)
            phi[:] = 0
            for k in range(dim):
                for i in range(dim):
                    phi[i] += contexts[query, k] * root[llm, k, i]
            norm = np.float32(0.0)
            for i in range(dim):
                norm += phi[i] * phi[i]
            grown = 1 + weight * norm
            shrink = np.float32(weight / (grown + np.sqrt(grown)))
            step = np.float32((taken - share) / grown)
            for k in range(dim):
                value = np.float32(0.0)
                for i in range(dim):
                    value += root[llm, k, i] * phi[i]
                direction[k] = value
            for k in range(dim):
                mean[llm, k] += direction[k] * step
                for i in range(dim):
                    root[llm, k, i] -= shrink * direction[k] * phi[i]
            if taken:
                length -= 1
                contexts[query] = contexts[length]
        if np.random.random() < rate and length < room:  # noqa: NPY002
            norm = np.float32(0.0)
            for k in range(dim):
                value = np.float32(2 * np.random.random() - 1)  # noqa: NPY002
                contexts[length, k] = value
                norm += value * value
            scale = max(1.0, np.sqrt(norm))
            for k in range(dim):
                contexts[length, k] /= scale
            length += 1
    return total / rounds


def simpy_queue(rounds: int, rate: float, service: float, seed: int) -> float:
    """The queue alone in SimPy, service and arrivals geometric; mean wait."""
    rng = np.random.default_rng(seed)
    environment = simpy.Environment()
    server = simpy.Resource(environment, capacity=1)
    waits: list[float] = []

    def query():
        arrived = environment.now
        with server.request() as turn:
            yield turn
            yield environment.timeout(rng.geometric(service))
        waits.append(environment.now - arrived)

    def source():
        while True:
            yield environment.timeout(rng.geometric(rate))
            environment.process(query())

    environment.process(source())
    environment.run(until=rounds)
    return float(np.mean(waits))


def ciw_queue(rounds: int, rate: float, service: float, seed: int) -> float:
    """The same in Ciw."""
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Geometric(rate)],
        service_distributions=[ciw.dists.Geometric(service)],
        number_of_servers=[1],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(rounds)
    records = simulation.get_all_records()
    return float(np.mean([record.exit_date - record.arrival_date for record in records]))
