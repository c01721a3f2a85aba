"""The extended Kalman filter as an optimiser: from Jacobians of outputs in place of gradients of losses."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from foretrace._checks import UserError, check_number

Groups = Literal["all", "leaf", "unit"]
_WIDE = 10.0  # mean variance beyond which nothing is forgotten, in units of the prior


class KalmanState(NamedTuple):
    """What is known of the parameters.

    Attributes:
        covariances: one array (groups, n, n) for each set of leaves that share their groups.
    """

    covariances: tuple[jax.Array, ...]


def kalman(
    *,
    groups: Groups = "unit",
    prior: float = 0.01,
    noise: float = 1.0,
    drift: float = 0.0,
    forgetting: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """The (decoupled) extended Kalman filter: parameters are a state that the outputs measure.

    With H_i (n, m) the Jacobian of m outputs with respect to group i, xi (m,) the errors, target - output,
    and P_i (n, n) the group's covariance:

        P_i <- P_i / forgetting + drift 1                                             (1)
        A = (noise 1 + sum_i H_i^T P_i H_i)^-1                                        (2)
        change of group i = P_i H_i A xi                                              (3)
        P_i <- P_i - P_i H_i A H_i^T P_i                                              (4)

    The Jacobian comes from any learner, one read per output: `jax.vmap(learner.grad, (None, None, 0))` over
    credits, the rows of the Jacobian of the outputs with respect to the hidden state. It replaces the
    gradient in `update`, each leaf with a leading axis of outputs, and the errors go beside it. The changes
    are meant to be added as they are (`optax.apply_updates`); no learning rate is needed.

    Exactness: with groups="all", one linear readout and forgetting 1 it is recursive least squares, whose
    result is that of ridge regression. Otherwise it linearises about the present parameters, and groups
    leave out the covariance between them. Nothing is forgotten while a group's mean variance is above ten
    times `prior`: directions that no sample measures would grow for ever.

    Cost: the sum of all n^2 numbers in memory, 2 (m + 1) products with each covariance per update.

    Args:
        groups: which parameters share a covariance: "all", those of a "leaf", or those of a "unit": of the
            leaves of one dict that have a last axis of the same length, the entries at one place of it.
        prior: variance of a parameter at first. The initial parameters should be random.
        noise: variance of the outputs about their targets, in the outputs' unit squared.
        drift: variance that each parameter gains per update.
        forgetting: weight of a past sample per new one, in (0, 1].

    Returns:
        `init(params)` and `update(jacobian, state, params=None, *, error) -> (changes, state)`, where
        jacobian has the leaves of params with a leading axis (m,), and error is (m,).

    Raises:
        TypeError, ValueError: a number is out of its range, or `groups` is none of the three; in `update`,
            shapes that do not fit.

    Example:
        >>> import jax, jax.numpy as jnp, optax, foretrace as ft
        >>> optimizer = ft.optim.kalman(groups="all", prior=1.0)
        >>> params = jnp.zeros(2)
        >>> state = optimizer.init(params)
        >>> jacobian = jnp.array([[1.0, 0.0]])  # of the output params[0]
        >>> changes, state = optimizer.update(jacobian, state, error=jnp.array([2.0]))
        >>> optax.apply_updates(params, changes).round(3).tolist()
        [1.0, 0.0]

    Source: Puskorius, Feldkamp, Neurocontrol of nonlinear dynamical systems with Kalman filter trained
    recurrent networks, IEEE Transactions on Neural Networks 5(2), 1994, equations 14 to 17; the filter of
    parameters is Singhal, Wu, NIPS 1988; (1) with forgetting as in recursive least squares.
    """
    if groups not in get_args(Groups):
        raise UserError(f"groups must be one of {', '.join(get_args(Groups))}; got {groups!r}; try 'unit'.")
    check_number("prior", prior, "> 0", "0.01 is the default")
    check_number("noise", noise, "> 0", "1 is the default, for outputs of order 1")
    check_number("drift", drift, ">= 0", "0 is the default")
    check_number("forgetting", forgetting, "> 0", "1 is the default, which forgets nothing")
    if forgetting > 1:
        raise UserError(f"forgetting must be at most 1; got {forgetting!r}; 1 forgets nothing.")

    def init(params: Any) -> KalmanState:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(params)):
            raise UserError("params must be real; got complex ones; hold real and imaginary parts apart.")
        rows = _split(groups, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params))
        return KalmanState(
            tuple(
                jnp.tile(prior * jnp.eye(row.shape[2], dtype=row.dtype), (len(row), 1, 1)) for row in rows
            )
        )

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        if "error" not in extra:
            raise UserError("update needs error=, target - output of each output, (outputs,); got none.")
        error = jnp.asarray(extra["error"])
        _check_shapes(jax.tree.leaves(updates), error)
        jacobians = _split(groups, updates)  # H_i^T, (groups, m, n)
        wide = _WIDE * prior

        def before(covariance):  # (1)
            mean = jnp.mean(jnp.diagonal(covariance, axis1=1, axis2=2), axis=1)[:, None, None]
            grown = jnp.where(mean < wide, covariance / forgetting, covariance)
            return grown + drift * jnp.eye(covariance.shape[-1], dtype=covariance.dtype)[None]

        covariances = [before(each) for each in state.covariances]
        products = [h @ p for h, p in zip(jacobians, covariances, strict=True)]  # H_i^T P_i
        identity = jnp.eye(len(error), dtype=error.dtype)
        measured = sum(
            jnp.einsum("gmn,gkn->mk", product, h) for product, h in zip(products, jacobians, strict=True)
        )
        root = jnp.linalg.cholesky(noise * identity + measured)  # A = (root root^T)^-1, (2)

        def whiten(rows):
            return jax.lax.linalg.triangular_solve(root, rows, left_side=True, lower=True)

        scaled = whiten(error[:, None])[:, 0]
        # V = root^-1 H^T P: both (3) and (4) are products of it, and (4) stays symmetric.
        halves = [jax.vmap(whiten)(product) for product in products]
        changes = [jnp.einsum("gmn,m->gn", half, scaled) for half in halves]
        after = [p - jnp.matrix_transpose(v) @ v for p, v in zip(covariances, halves, strict=True)]
        # One bad number must not end an endless stream.
        is_sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in (*changes, *after)]))
        changes = [jnp.where(is_sound, each, 0) for each in changes]
        after = [jnp.where(is_sound, new, old) for new, old in zip(after, state.covariances, strict=True)]
        return _join(groups, changes, updates), KalmanState(tuple(after))

    return optax.GradientTransformationExtraArgs(init, update)


def _check_shapes(leaves: list[jax.Array], error: jax.Array) -> None:
    shapes = sorted({leaf.shape[:1] for leaf in leaves})
    if error.ndim != 1 or shapes != [error.shape]:
        raise UserError(
            f"error must be (outputs,), and every leaf of the Jacobian must have that leading axis; got "
            f"error {error.shape} and leading axes {shapes}; for one output give both an axis of length 1."
        )


def _sets(groups: Groups, tree: Any) -> list[list[int]]:
    """Numbers of the leaves, (m, ..), that share their groups."""
    sets: dict[Any, list[int]] = {}
    for number, (path, leaf) in enumerate(jax.tree.leaves_with_path(tree)):
        name = {"all": 0, "leaf": number, "unit": (path[:-1], leaf.shape[1:][-1:])}[groups]
        sets.setdefault(name, []).append(number)
    return list(sets.values())


def _columns(groups: Groups, leaf: jax.Array) -> jax.Array:
    """A leaf (m, ..) as (m, n, groups)."""
    count = leaf.shape[-1] if groups == "unit" and leaf.ndim > 1 else 1
    return leaf.reshape(len(leaf), -1, count)


def _split(groups: Groups, tree: Any) -> list[jax.Array]:
    """Rows of each set of groups, (groups, m, n), of leaves (m, ..)."""
    columns = [_columns(groups, leaf) for leaf in jax.tree.leaves(tree)]
    joined = (jnp.concatenate([columns[i] for i in each], axis=1) for each in _sets(groups, tree))
    return [jnp.moveaxis(each, 2, 0) for each in joined]


def _join(groups: Groups, rows: list[jax.Array], like: Any) -> Any:
    """A tree of leaves (..) of vectors (groups, n): the inverse of `_split` without its axis m."""
    leaves, treedef = jax.tree.flatten(like)
    for row, each in zip(rows, _sets(groups, like), strict=True):
        start = 0
        for i in each:
            end = start + _columns(groups, leaves[i]).shape[1]
            leaves[i], start = row[:, start:end].T.reshape(leaves[i].shape[1:]), end
    return jax.tree.unflatten(treedef, leaves)
