"""Draws a confusion matrix."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")  # Jobs have no screen.

from matplotlib import pyplot as plt


def confusion_matrix_png(matrix: list[list[int]], title: str) -> bytes:
    """A PNG of the matrix: rows are the true digits, columns what the model said."""
    largest = max(max(row) for row in matrix)
    figure, axes = plt.subplots(figsize=(6.4, 5.8), dpi=120)
    image = axes.imshow(matrix, cmap="Blues")
    for truth, row in enumerate(matrix):
        for guess, count in enumerate(row):
            if count:
                shade = "white" if count > largest / 2 else "black"
                axes.text(guess, truth, str(count), ha="center", va="center", color=shade, fontsize=9)
    axes.set_title(title)
    axes.set_xlabel("predicted digit")
    axes.set_ylabel("true digit")
    axes.set_xticks(range(len(matrix)))
    axes.set_yticks(range(len(matrix)))
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
