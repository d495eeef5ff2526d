"""Images: what the code of a job runs in."""

from __future__ import annotations

from datatailr.build._image import Image

__all__ = ["Image"]
