"""The classifiers that the workflow lets compete."""

from __future__ import annotations

from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

SEED = 7


def build(kind: str, parameters: dict[str, Any]) -> ClassifierMixin:
    """An untrained classifier; `kind` is `svm`, `forest`, `neighbours` or `logistic`."""
    if kind == "svm":
        return make_pipeline(StandardScaler(), SVC(**parameters))
    if kind == "forest":
        return RandomForestClassifier(random_state=SEED, **parameters)
    if kind == "neighbours":
        return KNeighborsClassifier(**parameters)
    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, **parameters))
    raise ValueError(f"unknown kind of model {kind!r}; known are svm, forest, neighbours and logistic")
