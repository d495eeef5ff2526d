"""What the tasks need of scikit-learn: the data, its division, the classifiers and the scores."""

from __future__ import annotations

from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

SEED = 7


def read() -> dict[str, Any]:
    """All pictures as rows of 64 grey values, and the digits that they show."""
    digits = load_digits()
    return {"pixels": digits.data, "labels": digits.target}


def divide(dataset: dict[str, Any], share: float) -> dict[str, Any]:
    """Sets to train, to check and to test on, each with all digits in proportion."""
    pixels, labels = dataset["pixels"], dataset["labels"]
    rest_pixels, test_pixels, rest_labels, test_labels = train_test_split(
        pixels, labels, test_size=share, stratify=labels, random_state=SEED
    )
    train_pixels, check_pixels, train_labels, check_labels = train_test_split(
        rest_pixels, rest_labels, test_size=share, stratify=rest_labels, random_state=SEED
    )
    return {
        "train": (train_pixels, train_labels),
        "check": (check_pixels, check_labels),
        "test": (test_pixels, test_labels),
    }


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


def measure(model: ClassifierMixin, pixels: Any, labels: Any) -> dict[str, Any]:
    """How well the model reads pictures that it never saw, in plain Python values."""
    guesses = model.predict(pixels)
    return {
        "test pictures": len(labels),
        "accuracy": float(accuracy_score(labels, guesses)),
        "macro F1": float(f1_score(labels, guesses, average="macro")),
        "mistakes": int((guesses != labels).sum()),
        "confusion matrix": confusion_matrix(labels, guesses).tolist(),
    }
