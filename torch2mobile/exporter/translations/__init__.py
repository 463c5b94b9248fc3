"""Translations that torch2mobile has in place of the exporter's: where those are wrong or missing.

Each is one function of ONNX operators in torch.onnx's own registration API, and has a row here. A
test holds every row against torch. A row goes when the exporter is right.
"""

from __future__ import annotations

from torch2mobile.exporter.translations import (
    attention,
    bessel,
    distances,
    division,
    elementwise,
    error_function,
    extremes,
    indexing,
    losses,
    matrices,
    normalising,
    padding,
    pooling,
    recurrence,
    resizing,
    scanning,
    scattering,
    searching,
    sorting,
    special,
)
from torch2mobile.exporter.translations.row import Row

ROWS: tuple[Row, ...] = (
    *attention.ROWS,
    *elementwise.ROWS,
    *division.ROWS,
    *scanning.ROWS,
    *sorting.ROWS,
    *extremes.ROWS,
    *searching.ROWS,
    *indexing.ROWS,
    *padding.ROWS,
    *pooling.ROWS,
    *resizing.ROWS,
    *normalising.ROWS,
    *losses.ROWS,
    *recurrence.ROWS,
    *scattering.ROWS,
    *distances.ROWS,
    *special.ROWS,
    *error_function.ROWS,
    *bessel.ROWS,
    *matrices.ROWS,
)
"""All mended operators, in the order of the listing."""
