"""The workflow: which step needs what."""

from __future__ import annotations

from datatailr import workflow
from digits.tasks import choose, draw, evaluate, load, split, train


@workflow(name="Recognise Digits", python_requirements=["scikit-learn", "matplotlib"])
def recognise_digits(test_share: float = 0.25) -> None:
    """Load, split, train several models side by side, keep the best, test it, draw its mistakes."""
    sets = split(load(), test_share=test_share)
    candidates = [
        train(sets, "svm", kernel="rbf", C=1.0).alias("train-svm-rbf"),
        train(sets, "svm", kernel="rbf", C=10.0, gamma=0.01).alias("train-svm-rbf-tight"),
        train(sets, "forest", n_estimators=100).alias("train-forest-100"),
        train(sets, "forest", n_estimators=300, max_depth=12).alias("train-forest-300"),
        train(sets, "neighbours", n_neighbors=3).alias("train-neighbours-3"),
        train(sets, "logistic", C=0.1).alias("train-logistic"),
    ]
    figures = evaluate(sets, choose(candidates))
    draw(figures)


if __name__ == "__main__":
    recognise_digits()
