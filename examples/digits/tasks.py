"""The steps of the workflow. Each runs in a process of its own.

The heavy libraries are imported inside the functions, so that the machine that only deploys the
workflow does not need them.
"""

from __future__ import annotations

import time
from typing import Any

from datatailr import task


@task()
def load() -> dict[str, Any]:
    """The UCI handwritten digits: 1797 pictures of 8 by 8 pixels, which come with scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    print(
        f"loaded {len(digits.target)} pictures of {digits.images.shape[1]} by {digits.images.shape[2]} pixels"
    )
    return {"pixels": digits.data, "labels": digits.target}


@task()
def split(dataset: dict[str, Any], test_share: float = 0.25) -> dict[str, Any]:
    """Divides the pictures into training, validation and test sets, each with all digits in proportion."""
    from sklearn.model_selection import train_test_split

    pixels, labels = dataset["pixels"], dataset["labels"]
    rest_pixels, test_pixels, rest_labels, test_labels = train_test_split(
        pixels, labels, test_size=test_share, stratify=labels, random_state=7
    )
    train_pixels, check_pixels, train_labels, check_labels = train_test_split(
        rest_pixels, rest_labels, test_size=test_share, stratify=rest_labels, random_state=7
    )
    print(f"{len(train_labels)} to train, {len(check_labels)} to choose, {len(test_labels)} to test")
    return {
        "train": (train_pixels, train_labels),
        "check": (check_pixels, check_labels),
        "test": (test_pixels, test_labels),
    }


@task(memory="1g", cpu=1)
def train(sets: dict[str, Any], kind: str, **parameters: Any) -> dict[str, Any]:
    """Trains one model and scores it on the validation set."""
    from digits.models import build

    model = build(kind, parameters)
    began = time.perf_counter()
    model.fit(*sets["train"])
    seconds = time.perf_counter() - began
    score = model.score(*sets["check"])
    settings = ", ".join(f"{name}={value}" for name, value in parameters.items())
    name = f"{kind}({settings})"
    print(f"{name}: {score:.1%} right on the validation set after {seconds:.2f} s of training")
    return {"name": name, "score": score, "seconds": seconds, "model": model}


@task()
def choose(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """Picks the model that did best on the validation set."""
    ranking = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)
    print("ranking on the validation set")
    for place, candidate in enumerate(ranking, start=1):
        print(f"{place:3}. {candidate['score']:.1%}  {candidate['name']}")
    return ranking[0]


@task()
def evaluate(sets: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
    """Measures the chosen model on pictures that it never saw."""
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    pixels, labels = sets["test"]
    guesses = best["model"].predict(pixels)
    matrix = confusion_matrix(labels, guesses)
    mistakes = [
        (int(matrix[truth][guess]), truth, guess)
        for truth in range(10)
        for guess in range(10)
        if truth != guess and matrix[truth][guess]
    ]
    figures = {
        "model": best["name"],
        "test pictures": len(labels),
        "accuracy": float(accuracy_score(labels, guesses)),
        "macro F1": float(f1_score(labels, guesses, average="macro")),
        "mistakes": sum(count for count, _, _ in mistakes),
        "confusion matrix": matrix.tolist(),
    }
    print(f"{best['name']} gets {figures['accuracy']:.1%} of {len(labels)} unseen pictures right")
    for count, truth, guess in sorted(mistakes, reverse=True)[:5]:
        print(f"  {truth} read as {guess}: {count}")
    return figures


@task()
def draw(figures: dict[str, Any]) -> bytes:
    """Draws the confusion matrix as a PNG."""
    from digits.picture import confusion_matrix_png

    title = f"{figures['model']}: {figures['accuracy']:.1%} right"
    png = confusion_matrix_png(figures["confusion matrix"], title)
    print(f"drew {len(png)} bytes")
    return png
