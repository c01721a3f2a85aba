"""Base of the estimators: their state, how it is copied, saved and loaded."""

import os
from typing import Any

import jax
import numpy as np

from foretrace import stream
from foretrace._checks import UserError, check_positive_int
from foretrace.river._features import Features, to_plain
from foretrace.river._pending import PendingPredictions
from foretrace.runs import checkpoint


class Recurrent:
    """An estimator whose state is created at the first sample.

    Subclasses give the configuration, its compiled functions, and what continues beside the arrays.
    """

    _state: Any = None
    _config: Any = None
    _get_params: Any
    _features: Features
    _pending: PendingPredictions

    def _begin(self, delay: int = 0) -> None:
        self._features, self._pending = Features(), PendingPredictions(delay)

    def _config_now(self) -> Any:
        """The configuration for the features registered so far."""
        raise NotImplementedError

    def _functions(self, config: Any) -> Any:
        """The compiled functions of a configuration."""
        raise NotImplementedError

    @property
    def _compiled(self) -> Any:
        return self._functions(self._config)

    def _ensure_state(self) -> None:
        """Creates the state, or enlarges it for new features or classes."""
        config = self._config_now()
        if config == self._config:
            return
        functions = self._functions(config)
        state = functions.init(jax.random.key(self._seed))
        if self._state is not None:
            state = functions.pack(stream.enlarge(self._tree, functions.unpack(state)))
        self._config, self._state = config, state
        if len(self._pending):
            self._pending.enlarge(self._prediction_shapes())

    @property
    def _tree(self) -> Any:
        """The state with its names."""
        return self._compiled.unpack(self._state)

    def _prediction_shapes(self) -> Any:
        x = self._features.vector({})
        hidden = self._tree.network.learner.hidden
        return jax.eval_shape(self._compiled.predict_after, self._state, x, hidden)

    def _predict_pending(self, x: dict) -> Any:
        """The prediction for `x` whose label is pending, or a new one, after those that are pending."""
        prediction = self._pending.find(x)
        if prediction is None:
            hidden = self._pending.latest_hidden()
            hidden = self._tree.network.learner.hidden if hidden is None else hidden
            prediction = self._compiled.predict_after(self._state, self._features.vector(x), hidden)
            self._pending.append(x, prediction)
        return prediction

    @property
    def _seed(self) -> int:
        return getattr(self, "seed", 0)

    def _beside(self) -> dict[str, Any]:
        """State beside the arrays, as JSON."""
        return {"features": [to_plain(name) for name in self._features.index]}

    def _restore(self, beside: dict[str, Any]) -> None:
        """Inverse of `_beside`."""
        self._features = Features({name: index for index, name in enumerate(beside["features"])})

    def save(self, path: str | os.PathLike) -> None:
        """Saves everything that continues, as the newest checkpoint of a folder (see `foretrace.save`).

        Args:
            path: the folder, created.

        Raises:
            ValueError: if nothing was learned yet, or a name of a feature or class is not a string.
            CheckpointError: if it could not be written; older checkpoints are whole.
        """
        if self._state is None:
            raise UserError("model must have learned something before it is saved; got a new one.")
        beside = self._beside()
        for kind, names in beside.items():
            for name in names if isinstance(names, list) else []:
                if not isinstance(name, str | int | float | bool):
                    raise UserError(
                        f"{kind} must be named by strings or numbers to be saved; got {name!r}; rename it."
                    )
        params = {name: to_plain(value) for name, value in self._get_params().items()}
        info = {"class": type(self).__name__, "params": params, "beside": beside}
        info["pending"] = self._pending.features()
        checkpoint.save(path, {"state": self._tree, "pending": self._pending.arrays()}, info=info)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Any:
        """A model that goes on exactly where a saved one was.

        Args:
            path: the folder of `save`.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if it is that of another class of model.
            CheckpointError: if none is whole.
        """
        models: list[Any] = []

        def like_for(info):
            if info.get("class") != cls.__name__:
                raise UserError(
                    f"path must be a folder that {cls.__name__}.save wrote; got {str(path)!r}, which "
                    f"{info.get('class') or 'something else'} wrote; load it with that."
                )
            model = cls(**info["params"])
            model._restore(info["beside"])
            model._ensure_state()
            models.append(model)
            count, pending = len(info["pending"]), ()
            if count:
                pending = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype),
                    model._prediction_shapes(),
                )
            return {"state": model._tree, "pending": pending}

        restored = checkpoint.restore_as(path, like_for)
        model = models[-1]
        model._state = model._compiled.pack(restored.tree["state"])
        model._pending.restore(restored.info["pending"], restored.tree["pending"])
        return model

    def __getstate__(self) -> dict[str, Any]:
        # Keys and donated arrays cannot be copied; NumPy arrays can.
        return self.__dict__ | {"_state": jax.tree.map(_to_numpy, self._state)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = jax.tree.map(_from_numpy, self._state, is_leaf=lambda leaf: isinstance(leaf, _Key))


class _Key:
    """A PRNG key that can be copied."""

    def __init__(self, key: Any):
        self.data = np.array(jax.random.key_data(key))


def _to_numpy(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return _Key(leaf) if is_key else np.array(leaf)


def _from_numpy(leaf: Any) -> Any:
    if isinstance(leaf, _Key):
        return jax.random.wrap_key_data(jax.numpy.array(leaf.data))
    return jax.numpy.array(leaf)


def check(cell: str, hidden: int, learning_rate: float, seed: int) -> None:
    """Raises ValueError or TypeError for arguments that make no sense."""
    if cell not in stream.CELLS:
        raise UserError(
            f"cell must be one of {', '.join(stream.CELLS)}; got {cell!r}; elstm is the default."
        )
    check_positive_int("hidden", hidden, "32 is the default")
    if not 0 < learning_rate < 1:
        raise UserError(
            f"learning_rate must be above 0 and below 1; got {learning_rate}; 0.003 is the default."
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be an int from 0 to 2**32 - 1; got {seed}; 0 is the default.")


def check_target(
    lags: int, target: str, period: int | str, coverage: float, *, finds_seasons: bool = False
) -> None:
    """Raises ValueError or TypeError for arguments of regressors and forecasters that make no sense."""
    check_positive_int("lags", lags, "24 is the default")
    is_found = finds_seasons and period == "auto"
    if not is_found and not (isinstance(period, int) and 0 <= period <= 100_000):
        words = ' or "auto"' * finds_seasons
        raise UserError(
            f"period must be an int from 0 to 100,000{words}; got {period!r}; 0 is for no season."
        )
    if target not in ("auto", "change", "level"):
        raise UserError(f"target must be auto, change or level; got {target!r}; auto is the default.")
    if not 0 < coverage < 1:
        raise UserError(f"coverage must be above 0 and below 1; got {coverage}; 0.9 is the default.")


def check_delay(delay: int) -> None:
    """Raises ValueError unless `delay` is a number of samples."""
    if not (isinstance(delay, int) and 0 <= delay <= 1_000_000):
        raise UserError(f"delay must be an int from 0 to 1,000,000; got {delay}; 0 if labels come at once.")


def check_weights(w: Any, rows: int) -> np.ndarray:
    """Sample weights, (rows,), from one number or one for each row; UserError if one is negative."""
    weights = stream.float_array(np.broadcast_to(np.asarray(w, float), rows))
    if not np.all((weights >= 0) & (weights < np.inf)):
        raise UserError(f"w must be a finite number >= 0; got {w}; 1 is the default, 0 learns nothing.")
    return weights


def config_of(model: Any, horizon: int) -> stream.Config:
    """The configuration of a regressor or forecaster for the features registered so far."""
    names = ("cell", "hidden", "lags", "target", "period", "learning_rate", "coverage")
    fixed = {name: getattr(model, name) for name in names}
    return stream.Config(**fixed, features=model._features.capacity, horizon=horizon)
