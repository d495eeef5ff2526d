"""Write `docs/errors` from the catalogue of codes: `python tools/error_pages.py`."""

from __future__ import annotations

from pathlib import Path

from datatailr.catalogue import pages

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "errors"


def main() -> None:
    """Write each page, and remove those of codes that are not in the catalogue."""
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()

    for old in FOLDER.glob("*.md"):
        if old.name not in wanted:
            old.unlink()

    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
