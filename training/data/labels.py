"""Promise targets from promises and outcomes: pure functions on one trajectory of steps 0..T.

The formulas are those of AgentPRM (arXiv 2511.08325), eqs. 11-14. ``promises`` holds M_0..M_T, M_t = M(s_t, a_t);
every list of targets or errors has the same length. ``outcome`` is the terminal reward in [0, 1] of a trajectory that
the task ended (terminated). It is None for one that was cut (truncated), which bootstraps from its last promise.

Equation 12 taken literally adds the outcome and the last promise at the terminal step, and targets near 2 follow. As
is usual in the field, nothing is bootstrapped past the end here: delta_T = outcome - M_{T-1}.
"""

from collections.abc import Sequence


def td_errors(promises: Sequence[float], outcome: float | None, *, gamma: float, start: float = 0.0) -> list[float]:
    """Returns delta_t = r_t + gamma * M_t - M_{t-1} (eq. 12), with M_{-1} = ``start``.

    The paper leaves M_{-1} open; ``promise_targets`` does not depend on it.

    Raises:
        ValueError: there are no promises.
    """
    if not promises:
        raise ValueError("a trajectory without steps has no TD errors")
    ahead = [gamma * promise for promise in promises]
    if outcome is not None:
        ahead[-1] = outcome
    return [value - before for value, before in zip(ahead, [start, *promises[:-1]], strict=True)]


def gae(deltas: Sequence[float], *, gamma: float, lam: float) -> list[float]:
    """Returns Ahat_t = sum_k (gamma * lam)^k * delta_{t+k} (eq. 13), by its backward recursion."""
    advantages = list(deltas)
    for t in reversed(range(len(advantages) - 1)):
        advantages[t] += gamma * lam * advantages[t + 1]
    return advantages


def promise_targets(promises: Sequence[float], outcome: float | None, *, gamma: float, lam: float) -> list[float]:
    """Returns Qhat_t = Ahat_t + M_{t-1} (eq. 14); at the terminal step this is the outcome."""
    advantages = gae(td_errors(promises, outcome, gamma=gamma), gamma=gamma, lam=lam)
    return [advantage + before for advantage, before in zip(advantages, [0.0, *promises[:-1]], strict=True)]


def lambda_returns(promises: Sequence[float], outcome: float | None, *, gamma: float, lam: float) -> list[float]:
    """Returns the same targets by one recursion: Qhat_t = gamma * ((1 - lam) * M_t + lam * Qhat_{t+1}).

    Raises:
        ValueError: there are no promises.
    """
    if not promises:
        raise ValueError("a trajectory without steps has no returns")
    returns = [gamma * promises[-1] if outcome is None else outcome]
    for promise in reversed(promises[:-1]):
        returns.append(gamma * ((1 - lam) * promise + lam * returns[-1]))
    return returns[::-1]


def outcome_targets(steps: int, outcome: float, *, gamma: float) -> list[float]:
    """Returns the discounted outcome for every step: the paper's PVM baseline, and ``promise_targets`` at lam = 1."""
    return [gamma ** (steps - 1 - t) * outcome for t in range(steps)]


def final_outcome_targets(steps: int, outcome: float) -> list[float | None]:
    """Returns the outcome for the final step and None for the others: labels of an outcome reward model (ORM)."""
    return [None] * (steps - 1) + [outcome]


def monte_carlo_targets(continuations: Sequence[Sequence[float]], *, hard: bool = False) -> list[float]:
    """Returns the mean outcome of each step's continuations; with ``hard``, 1 if any succeeded, else 0 (eq. 11).

    Eq. 11 is the label of Math-Shepherd.

    Raises:
        ValueError: a step has no continuation.
    """
    if not all(continuations):
        raise ValueError("every step needs at least one continuation")
    if hard:
        return [float(any(outcome > 0 for outcome in outcomes)) for outcomes in continuations]
    return [sum(outcomes) / len(outcomes) for outcomes in continuations]
