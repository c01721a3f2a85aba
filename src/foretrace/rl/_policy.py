"""Policies: from the outputs of a network to a distribution over actions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import UserTypeError
from foretrace.rl.environments import Continuous, Discrete


class Policy(NamedTuple):
    """A family of distributions over actions.

    Attributes:
        outputs: numbers that it takes from a network.
        sample: `(key, outputs) -> action`.
        log_prob: `(outputs, action) -> scalar`.
        entropy: `(outputs) -> scalar`, in nats.
        vector: `(action, dtype) -> vector`, for the network's next input.
        none: `(dtype) -> action`, in place of one before there was any.
        size: length of that vector.
    """

    outputs: int
    sample: Callable[[Any, jax.Array], Any]
    log_prob: Callable[[jax.Array, Any], jax.Array]
    entropy: Callable[[jax.Array], jax.Array]
    vector: Callable[[Any, Any], jax.Array]
    none: Callable[[Any], Any]
    size: int


def policy_of(actions: Any) -> Policy:
    """The policy for a space of actions: a softmax for `Discrete`, a Gaussian for `Continuous`.

    Raises:
        UserError: it is another one.
    """
    if isinstance(actions, Discrete):
        return discrete(actions.size)
    if isinstance(actions, Continuous):
        return gaussian(actions.size)
    raise UserTypeError(
        f"actions must be Discrete(n) or Continuous(n); got {actions!r}; for an environment without "
        "actions use td."
    )


def discrete(n: int) -> Policy:
    """A softmax over n actions."""

    def log_prob(outputs, action):
        return jax.nn.log_softmax(outputs)[action]

    def entropy(outputs):
        return -jax.nn.softmax(outputs) @ jax.nn.log_softmax(outputs)

    return Policy(
        outputs=n,
        sample=lambda key, outputs: jax.random.categorical(key, outputs).astype(jnp.int32),
        log_prob=log_prob,
        entropy=entropy,
        vector=lambda action, dtype: jax.nn.one_hot(action, n, dtype=dtype),
        none=lambda dtype: jnp.zeros((), jnp.int32),
        size=n,
    )


def gaussian(n: int) -> Policy:
    """Independent Gaussians for n numbers: means, then softplus of the rest as standard deviations."""
    constant = 0.5 * math.log(2 * math.pi)

    def parts(outputs):
        mean, raw = jnp.split(outputs, 2)
        return mean, jax.nn.softplus(raw) + 1e-5

    def sample(key, outputs):
        mean, std = parts(outputs)
        return mean + std * jax.random.normal(key, mean.shape, mean.dtype)

    def log_prob(outputs, action):
        mean, std = parts(outputs)
        return -jnp.sum(0.5 * ((action - mean) / std) ** 2 + jnp.log(std) + constant)

    def entropy(outputs):
        _, std = parts(outputs)
        return jnp.sum(jnp.log(std) + constant + 0.5)

    return Policy(
        outputs=2 * n,
        sample=sample,
        log_prob=log_prob,
        entropy=entropy,
        vector=lambda action, dtype: action.astype(dtype),
        none=lambda dtype: jnp.zeros(n, dtype),
        size=n,
    )
