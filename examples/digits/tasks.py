"""The steps of the workflow. Each runs in a process of its own."""

from __future__ import annotations

import time
from typing import Any

from datatailr import task

try:
    from digits import learning, picture
except ModuleNotFoundError:
    # The machine that only deploys needs neither scikit-learn nor matplotlib. Where the tasks run both are
    # installed, imported once, and shared by the processes of all tasks.
    pass


@task()
def load() -> dict[str, Any]:
    """The UCI handwritten digits: 1797 pictures of 8 by 8 pixels, which come with scikit-learn."""
    dataset = learning.read()
    print(f"loaded {len(dataset['labels'])} pictures of {dataset['pixels'].shape[1]} pixels each")
    return dataset


@task()
def split(dataset: dict[str, Any], test_share: float = 0.25) -> dict[str, Any]:
    """Divides the pictures into those to train, to choose and to test with."""
    sets = learning.divide(dataset, test_share)
    for name, (_, labels) in sets.items():
        print(f"{len(labels):5} to {name}")
    return sets


@task(memory="512m", cpu=1)
def train(sets: dict[str, Any], kind: str, **parameters: Any) -> dict[str, Any]:
    """Trains one model and scores it on pictures that it was not trained with."""
    model = learning.build(kind, parameters)
    began = time.perf_counter()
    model.fit(*sets["train"])
    seconds = time.perf_counter() - began
    score = model.score(*sets["check"])
    name = f"{kind}({', '.join(f'{key}={value}' for key, value in parameters.items())})"
    print(f"{name}: {score:.1%} right after {seconds:.2f} s of training")
    return {"name": name, "score": score, "seconds": seconds, "model": model}


@task()
def choose(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """Picks the best model."""
    ranking = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)
    print("ranking on the validation set")
    for place, candidate in enumerate(ranking, start=1):
        print(f"{place:3}. {candidate['score']:.1%}  {candidate['name']}")
    return ranking[0]


@task()
def evaluate(sets: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
    """Measures the chosen model on pictures that played no part so far."""
    figures = learning.measure(best["model"], *sets["test"])
    print(f"{best['name']} reads {figures['accuracy']:.1%} of {figures['test pictures']} pictures right")
    for truth, row in enumerate(figures["confusion matrix"]):
        for guess, count in enumerate(row):
            if count and guess != truth:
                print(f"  {truth} read as {guess}: {count}")
    return {"model": best["name"], **figures}


@task()
def draw(figures: dict[str, Any]) -> bytes:
    """Draws the confusion matrix as a PNG."""
    title = f"{figures['model']}: {figures['accuracy']:.1%} right"
    png = picture.confusion_matrix_png(figures["confusion matrix"], title)
    print(f"drew {len(png)} bytes")
    return png
