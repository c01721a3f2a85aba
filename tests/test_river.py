"""River's own checks, and what River users rely on."""

import datetime
import decimal
import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from river import compose, datasets, evaluate, metrics, preprocessing
from river.checks import yield_checks

from foretrace.river import RecurrentClassifier, RecurrentForecaster, RecurrentRegressor

# Small and alike: all checks of one class share what was compiled.
MODELS = [
    RecurrentRegressor(hidden=4, lags=2),
    RecurrentClassifier(hidden=4),
    RecurrentForecaster(horizon=3, hidden=4, lags=2),
]


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def all_checks():
    for model in MODELS:
        for number, check in enumerate(yield_checks(model)):
            yield pytest.param(model, check, id=f"{type(model).__name__}-{number}-{check.__name__}")


@pytest.mark.filterwarnings("default")  # River's own
@pytest.mark.parametrize(("model", "check"), list(all_checks()))
def test_river_accepts_it(model, check):
    assert check.__name__ not in model._unit_test_skips()
    check(model.clone())


def stream(n, seed=0):
    rng = np.random.default_rng(seed)
    for t in range(n):
        x = {"a": float(rng.normal()), "b": float(rng.normal())}
        yield x, 3 * x["a"] + float(np.sin(t / 5))


def regressor(**options):
    return RecurrentRegressor(hidden=4, lags=2, **options)


class TestRegressor:
    def test_it_learns_in_a_pipeline_what_a_feature_means(self):
        model = compose.Pipeline(preprocessing.StandardScaler(), regressor())
        error = evaluate.progressive_val_score(stream(600), model, metrics.MAE()).get()
        assert error < 0.6 * np.mean([abs(y) for _, y in stream(600)])

    def test_to_ask_leaves_no_trace(self):
        asked, silent = regressor(), regressor()
        for x, y in stream(30):
            for _ in range(3):
                first = asked.predict_one(x)
            assert asked.predict_one(x) == first
            asked.predict_one({"a": -x["a"]})
            asked.learn_one(x, y)
            silent.learn_one(x, y)
        assert asked.predict_one(x) == silent.predict_one(x)

    @pytest.mark.parametrize("delay", [1, 7])
    def test_labels_may_come_late(self, delay):
        model = regressor(delay=delay)
        error = evaluate.progressive_val_score(stream(400), model, metrics.MAE(), delay=delay).get()
        assert error < 0.75 * np.mean([abs(y) for _, y in stream(400)])

    def test_a_late_label_belongs_to_the_question(self):
        """Features say when the target is large; with the state of the moment the two would not match."""
        model, rng, waiting = regressor(delay=3), np.random.default_rng(0), []
        said, came = [], []
        for _ in range(500):
            x = {"a": float(rng.normal())}
            waiting.append((x, 10 * x["a"], model.predict_one(x)))
            if len(waiting) > 3:
                x, y, before = waiting.pop(0)
                said.append(before)
                came.append(y)
                model.learn_one(x, y)
        assert np.mean(abs(np.array(said) - came)[200:]) < 1.5

    def test_many_rows_are_rows_one_by_one(self):
        rows = list(stream(270))
        frame = pd.DataFrame([x for x, _ in rows])
        many, one = regressor(), regressor()
        many.learn_many(frame, pd.Series([y for _, y in rows]))
        for x, y in rows:
            one.learn_one(x, y)
        assert many.predict_one(rows[0][0]) == pytest.approx(
            one.predict_one(rows[0][0]), rel=1e-2, abs=1e-2
        )

    def test_an_unknown_target_only_moves_time_on(self):
        model = regressor()
        for x, y in stream(20):
            model.learn_one(x, y)
        before = model.experts
        model.learn_one(x, None)
        assert model.experts == before
        assert np.isfinite(model.predict_one(x))

    def test_intervals_hold_and_surprises_are_seen(self):
        model, inside = regressor(), []
        for x, y in stream(500):
            lower, upper = model.predict_interval_one(x)
            inside.append(lower <= y <= upper)
            model.learn_one(x, y)
        assert 0.8 < np.mean(inside[100:]) < 0.97
        usual = model.predict_one(x)
        assert model.score_one(x, usual) < 0.2
        assert model.score_one(x, usual + 100) > 0.99

    def test_saved_and_loaded_it_goes_on_the_same(self, tmp_path):
        rows = list(stream(40))
        model = regressor()
        for x, y in rows[:20]:
            model.learn_one(x, y)
        model.save(tmp_path / "model")
        loaded, copied = RecurrentRegressor.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))
        for x, y in rows[20:]:
            said = model.predict_one(x)
            assert loaded.predict_one(x) == said == copied.predict_one(x)
            for one in (model, loaded, copied):
                one.learn_one(x, y)
        with pytest.raises(ValueError, match=r"which RecurrentRegressor wrote"):
            RecurrentClassifier.load(tmp_path / "model")

    @pytest.mark.parametrize("delay", [0, 2])
    def test_targets_and_features_far_from_zero_are_predicted_as_well(self, delay):
        answers, rows = [], list(stream(120))
        for offset in (0.0, 1e8):
            model = regressor(delay=delay)
            moved = [({"a": x["a"] + offset, "b": x["b"]}, y + offset) for x, y in rows]
            answers.append([])
            for index, (x, _) in enumerate(moved):
                value, (lower, upper) = model.predict_one(x), model.predict_interval_one(x)
                answers[-1].append([value - offset, lower - offset, upper - offset])
                if index >= delay:
                    model.learn_one(*moved[index - delay])
        np.testing.assert_allclose(answers[1][20:], answers[0][20:], atol=0.05)

    def test_room_is_made_without_forgetting(self):
        model = regressor()
        for x, y in stream(300):
            model.learn_one(x, y)
        x = {"a": 1.0, "b": 0.0}
        before = model.predict_one(x)
        model.learn_one(x | {"c": 1.0}, before)
        assert model.predict_one(x) == pytest.approx(before, abs=1.5)

    def test_it_remembers_what_windows_have_forgotten(self):
        """A pulse on one of two channels says what is measured 100 to 300 samples later, with defaults."""
        rng, measured, y = np.random.default_rng(0), [0], np.full(60_000, np.nan)
        x = np.stack([np.zeros(len(y)), np.zeros(len(y)), rng.normal(size=len(y))], axis=1)
        while (end := measured[-1] + int(rng.integers(100, 301))) < len(y):
            side = int(rng.integers(2))
            x[measured[-1] + 1, side], y[end] = 1, 2 * side - 1
            measured.append(end)
        asked = np.array(measured[1:])
        frame, model, said, begin = pd.DataFrame(x, columns=["a", "b", "c"]), RecurrentRegressor(), [], 0
        for moment in asked[-20:]:
            model.learn_many(frame[begin:moment], y[begin:moment])
            said.append(model.predict_one(frame.iloc[moment].to_dict()))
            begin = moment
        error = np.mean(abs(np.array(said) - y[asked[-20:]]))
        # The best that a linear model of the last 50 samples could have learned.
        window = np.stack([np.r_[x[moment - 49 : moment + 1].ravel(), 1] for moment in asked])
        known, ridge = window[:-20], np.eye(window.shape[1])
        weights = np.linalg.solve(known.T @ known + ridge, known.T @ y[asked[:-20]])
        assert error < 0.4 * np.mean(abs(window[-20:] @ weights - y[asked[-20:]]))


class TestClassifier:
    def test_classes_appear_later(self):
        model, rng = RecurrentClassifier(hidden=4), np.random.default_rng(0)
        right = []
        for t in range(600):
            label = ["low", "high", 7][int(rng.integers(2 if t < 200 else 3))]
            x = {"a": {"low": -1.0, "high": 1.0, 7: 0.0}[label] + 0.1 * rng.normal()}
            if t == 100:
                assert set(model.predict_proba_one(x)) == {"low", "high"}
            right.append(model.predict_one(x) == label)
            model.learn_one(x, label)
        assert np.mean(right[450:]) > 0.8

    def test_it_remembers_what_no_feature_shows(self):
        """The class is the bit of the sample before: only memory can tell."""
        model, rng = RecurrentClassifier(hidden=8, learning_rate=0.02), np.random.default_rng(0)
        before, right = 0, []
        for _ in range(1500):
            bit = int(rng.integers(2))
            right.append(model.predict_one({"bit": bit}) == before)
            model.learn_one({"bit": bit}, before)
            before = bit
        assert np.mean(right[1200:]) > 0.9

    def test_saved_and_loaded_it_goes_on_the_same(self, tmp_path):
        model = RecurrentClassifier(hidden=4)
        for x, y in datasets.Phishing().take(20):
            model.learn_one(x, y)
        model.save(tmp_path)
        assert RecurrentClassifier.load(tmp_path).predict_proba_one(x) == model.predict_proba_one(x)


class TestForecaster:
    @pytest.mark.filterwarnings("default")  # River leaves its files open
    def test_it_is_evaluated_by_river(self):
        model = RecurrentForecaster(horizon=3, hidden=4, lags=12)
        metric = evaluate.evaluate(datasets.AirlinePassengers(), model, metrics.MAE(), horizon=3)
        persistence = np.array([y for _, y in datasets.AirlinePassengers()])
        persistence = np.mean([abs(persistence[h:] - persistence[:-h]).mean() for h in (1, 2, 3)])
        assert np.mean(metric.get()) < persistence  # one error for each horizon

    def test_features_ahead_count(self):
        rng = np.random.default_rng(0)
        model = RecurrentForecaster(horizon=2, hidden=4, lags=2)
        for _ in range(400):
            x = {"a": float(rng.normal())}
            model.learn_one(5 * x["a"], x)
        high = model.forecast(2, [{"a": 1.0}, {"a": -1.0}])
        assert high[0] > 3 and high[1] < -3

    def test_longer_horizons_repeat_the_last(self):
        model = RecurrentForecaster(horizon=2, hidden=4, lags=2)
        assert model.forecast(3) == [0.0] * 3
        for y in range(10):
            model.learn_one(y)
        said = model.forecast(4)
        assert said[1] == said[2] == said[3]
        with pytest.raises(ValueError, match="horizon must be an int >= 1; got 0"):
            model.forecast(0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RecurrentRegressor(cell="elman"), "cell must be one of diagonal, elstm, gru"),
        (lambda: RecurrentRegressor(hidden=0), "hidden must be an int >= 1; got 0"),
        (lambda: RecurrentRegressor(learning_rate=0.0), "learning_rate must be above 0"),
        (lambda: RecurrentRegressor(coverage=1.0), "coverage must be above 0 and below 1; got 1.0"),
        (lambda: RecurrentRegressor(delay=-1), "delay must be an int from 0"),
        (lambda: RecurrentRegressor(seed=-1), "seed must be an int from 0"),
        (lambda: RecurrentForecaster(period=-1), "period must be an int from 0 to 100,000"),
        (
            lambda: RecurrentForecaster().forecast(2, [{}]),
            "xs must have one dict for each of 2 values; got 1",
        ),
        (lambda: RecurrentForecaster(target="log"), "target must be auto, change or level; got 'log'"),
        (lambda: RecurrentForecaster(horizon=0), "horizon must be an int >= 1; got 0"),
        (lambda: regressor().learn_one({"a": float("inf")}, 1.0), "'a' must be finite"),
        (lambda: regressor().save("nowhere"), "model must have learned something"),
    ],
)
def test_what_is_wrong_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("delay", [1, 5])
@pytest.mark.parametrize("kind", [RecurrentRegressor, RecurrentClassifier])
def test_saved_with_labels_pending_it_goes_on_the_same(tmp_path, kind, delay):
    rows = [
        ({"a": x["a"], "b": None if i % 7 == 3 else x["b"]}, round(y))
        for i, (x, y) in enumerate(stream(60))
    ]

    def run(model, part):
        answers = []
        for i in part:
            ask = model.predict_one if kind is RecurrentRegressor else model.predict_proba_one
            answers.append(ask(rows[i][0]))
            if i >= delay:
                model.learn_one(*rows[i - delay])
        return answers

    model = kind(hidden=4, delay=delay)
    run(model, range(30))
    model.save(tmp_path / "model")
    copied, loaded = pickle.loads(pickle.dumps(model)), kind.load(tmp_path / "model")
    wanted = run(model, range(30, 60))
    assert run(loaded, range(30, 60)) == wanted == run(copied, range(30, 60))


def test_features_that_are_missing_find_their_prediction_again(tmp_path):
    model = regressor(delay=2)
    for x, y in stream(10):
        model.learn_one(x, y)
    model.predict_one({"a": float("nan"), "b": np.float64(1)})
    model.save(tmp_path)
    loaded = RecurrentRegressor.load(tmp_path)
    for one in (model, loaded):
        assert one._pending.pop({"b": 1.0, "a": None}) is not None


def test_new_classes_while_labels_are_pending_are_no_surprise():
    model = RecurrentClassifier(hidden=4, delay=8)
    model.learn_one({"a": 0.0}, "u")
    for number, label in enumerate("uvwxyz"):
        x = {"a": float(number)}
        model.predict_proba_one(x)
        model.learn_one({"a": -1.0}, label)
        assert len(model.predict_proba_one(x)) == number + 1
    model.learn_one(x, "z")


MISSING = [
    None,
    float("nan"),
    np.float32("nan"),
    pd.NA,
    pd.NaT,
    np.datetime64("NaT", "s"),
    decimal.Decimal("nan"),
]


@pytest.mark.parametrize("missing", MISSING, ids=[f"{type(m).__name__}" for m in MISSING])
def test_a_missing_label_is_no_class_in_any_spelling(missing):
    one, many, reference = (RecurrentClassifier(hidden=4) for _ in range(3))
    labels = [missing if i % 4 == 3 else "uv"[i % 2] for i in range(40)]
    frame = pd.DataFrame({"a": np.arange(40.0)})
    many.learn_many(frame, pd.Series(labels, dtype=object))
    for value, label in zip(frame["a"], labels, strict=True):
        one.learn_one({"a": value}, label)
        reference.learn_one({"a": value}, None if label is missing else label)
    wanted = reference.predict_proba_one({"a": 40.0})
    assert set(wanted) == {"u", "v"} and sum(wanted.values()) == pytest.approx(1)
    assert one.predict_proba_one({"a": 40.0}) == wanted
    assert many.predict_proba_one({"a": 40.0}) == pytest.approx(wanted, rel=1e-3)


def test_a_missing_number_is_unknown_in_any_spelling():
    models = [regressor() for _ in range(3)]
    for model, missing in zip(models, (None, pd.NA, float("nan")), strict=True):
        for i, (x, y) in enumerate(stream(20)):
            model.learn_one(x | ({"b": missing} if i % 3 else {}), y if i % 4 else missing)
    first, *others = [model.predict_one({"a": 1.0, "b": 1.0}) for model in models]
    assert all(other == first for other in others)


@pytest.mark.parametrize("label", [np.int64(3), np.str_("u"), np.bool_(True), np.float32(0.5)])
def test_labels_of_numpy_are_saved(tmp_path, label):
    model = RecurrentClassifier(hidden=4)
    model.learn_one({np.str_("a"): np.float32(1.0)}, label)
    model.learn_many(pd.DataFrame({"a": [1.0]}), np.array([label]))
    model.save(tmp_path)
    assert RecurrentClassifier.load(tmp_path)._classes == [label]
    assert len(model._classes) == 1


class TestWeights:
    def test_a_weight_of_one_is_the_default_and_nought_learns_nothing(self):
        default, one, nought, silent = (regressor() for _ in range(4))
        for x, y in stream(20):
            for model in (default, one, nought, silent):
                model.learn_one(x, y, **({} if model is default else {"w": 1.0}))
        assert default.predict_one(x) == one.predict_one(x)
        before = nought._tree
        nought.learn_one(x, 100.0, w=0)
        after = nought._tree
        for name in ("linear", "experts", "interval"):
            pairs = zip(
                jax.tree.leaves(getattr(before, name)), jax.tree.leaves(getattr(after, name)), strict=True
            )
            assert all(np.array_equal(a, b) for a, b in pairs), name
        assert jax.tree.all(jax.tree.map(np.array_equal, before.linear, after.linear))

    def test_heavy_samples_decide(self):
        """Two rules alternate; the model believes the one whose samples weigh more."""
        rng, errors = np.random.default_rng(0), {}
        for heavy in (1, -1):
            model = regressor()
            for i in range(600):
                sign = 1 if i % 2 else -1
                x = {"a": float(rng.normal())}
                model.learn_one(x, 3 * sign * x["a"], w=1.0 if sign == heavy else 0.02)
            errors[heavy] = model.predict_one({"a": 1.0})
        assert errors[1] > 1 and errors[-1] < -1

    def test_many_rows_have_a_weight_each_and_pipelines_hand_it_on(self):
        rows, weights = list(stream(40)), np.linspace(0, 3, 40)
        many, one = regressor(), compose.Pipeline(regressor())
        many.learn_many(pd.DataFrame([x for x, _ in rows]), pd.Series([y for _, y in rows]), w=weights)
        for (x, y), weight in zip(rows, weights, strict=True):
            one.learn_one(x, y, w=weight)
        assert many.predict_one(rows[0][0]) == pytest.approx(one.predict_one(rows[0][0]), rel=1e-4)
        classifier = RecurrentClassifier(hidden=4)
        classifier.learn_many(pd.DataFrame({"a": [1.0, 2.0]}), ["u", "v"], w=[1, 2])
        classifier.learn_one({"a": 1.0}, "u", w=2)

    @pytest.mark.parametrize("w", [-1.0, float("inf"), float("nan")])
    def test_other_weights_are_refused(self, w):
        with pytest.raises(ValueError, match="w must be a finite number >= 0"):
            regressor().learn_one({"a": 1.0}, 1.0, w=w)


def test_what_json_cannot_say_is_not_saved(tmp_path):
    model = regressor()
    model.learn_one({("a", 1): 1.0}, 1.0)
    with pytest.raises(
        ValueError, match=r"features must be named by strings or numbers to be saved; got \('a'"
    ):
        model.save(tmp_path)
    model = regressor(delay=2)
    model.learn_one({"a": 1.0}, 1.0)
    model.predict_one({"a": decimal.Decimal(1)})
    with pytest.raises(
        ValueError, match="'a' must be a number to be saved while its label is pending; got De"
    ):
        model.save(tmp_path)


def test_text_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="put preprocessing"):
        regressor().learn_one({"a": "x"}, 1.0)


DAY = datetime.datetime(2026, 1, 31, 12)


@pytest.mark.parametrize(
    "date", [DAY, DAY.date(), DAY.time(), np.datetime64(DAY), str(DAY), "2026-01-31"], ids=repr
)
def test_a_date_is_refused_with_a_remedy_for_dates(date):
    with pytest.raises(TypeError, match="make numbers of it, such as its hour") as refused:
        regressor().learn_one({"a": date}, 1.0)
    assert "OneHot" not in str(refused.value)
