"""A recurrent regressor in a River pipeline, beside persistence; needs `pip install 'foretrace[river]'`."""

from river import compose, datasets, metrics, preprocessing

from foretrace.river import RecurrentRegressor

model = compose.Pipeline(preprocessing.StandardScaler(), RecurrentRegressor())
ours, persistence, last = metrics.MAE(), metrics.MAE(), None
for x, y in datasets.TrumpApproval():
    if last is not None:
        ours.update(y, model.predict_one(x))
        persistence.update(y, last)
    model.learn_one(x, y)
    last = y
print(f"mean absolute error {ours.get():.4f}, persistence {persistence.get():.4f}")
weights = model["RecurrentRegressor"].experts.items()
print("experts:", ", ".join(f"{name} {weight:.0%}" for name, weight in weights))
