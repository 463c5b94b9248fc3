"""Small matrices in closed form, in float64: determinant, inverse, solution, Cholesky factor."""

from __future__ import annotations

import itertools
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import Refused, Row
from torch2mobile.exporter.translations.values import constant, op

LARGEST = 4
_WIDE = ir.DataType.DOUBLE
_SINGLE = ("float32", "float64")
Entries = list[list[Any]]


def _entries(matrix: Any) -> Entries:
    """Each entry as a tensor of the batch's shape; Refused above 4 by 4."""
    size = matrix.shape[-1]
    if not isinstance(size, int) or size != matrix.shape[-2] or not 1 <= size <= LARGEST:
        shown = " by ".join(str(each) for each in matrix.shape[-2:])
        raise Refused(
            f"matrices of {shown}: only square ones up to {LARGEST} by {LARGEST} have a closed form"
        )
    wide = op.Cast(matrix, to=_WIDE)
    rows = [op.Gather(wide, constant(n), axis=-2) for n in range(size)]
    return [[op.Gather(row, constant(n), axis=-1) for n in range(size)] for row in rows]


class _Minors:
    """Determinants of parts of a matrix, each made once."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.all = tuple(range(len(entries)))
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Any] = {}

    @property
    def whole(self) -> Any:
        """The matrix's own."""
        return self.of(self.all, self.all)

    def without(self, row: int, column: int) -> Any:
        """That of all other rows and columns."""
        return self.of(_other(self.all, row), _other(self.all, column))

    def of(self, rows: tuple[int, ...], columns: tuple[int, ...]) -> Any:
        """That of these rows and columns, by the first row."""
        if len(rows) == 1:
            return self.entries[rows[0]][columns[0]]
        if (rows, columns) not in self._known:
            found = None
            for number, column in enumerate(columns):
                part = op.Mul(
                    self.entries[rows[0]][column], self.of(rows[1:], _other(columns, column))
                )
                joined = op.Sub if number % 2 else op.Add
                found = part if found is None else joined(found, part)
            self._known[rows, columns] = found
        return self._known[rows, columns]


def _other(numbers: tuple[int, ...], but: int) -> tuple[int, ...]:
    return tuple(number for number in numbers if number != but)


def _matrix(m: Entries) -> Any:
    rows = [op.Concat(*(op.Unsqueeze(v, constant([-1])) for v in row), axis=-1) for row in m]
    return op.Concat(*(op.Unsqueeze(row, constant([-2])) for row in rows), axis=-2)


def det(matrix: Any) -> Any:
    """The determinant."""
    return op.Cast(_Minors(_entries(matrix)).whole, to=matrix.dtype)


def slogdet(matrix: Any) -> Any:
    """The determinant's sign, and the logarithm of its magnitude."""
    found = _Minors(_entries(matrix)).whole
    parts = op.Sign(found), op.Log(op.Abs(found))
    return tuple(op.Cast(part, to=matrix.dtype) for part in parts)


def inverse(matrix: Any) -> Any:
    """The inverse, of the cofactors."""
    return op.Cast(_inverse(matrix), to=matrix.dtype)


def _inverse(matrix: Any) -> Any:
    minors = _Minors(_entries(matrix))
    size, whole = len(minors.all), minors.whole
    if size == 1:
        return _matrix([[op.Reciprocal(whole)]])
    found: Entries = [[None] * size for _ in range(size)]
    for row, column in itertools.product(range(size), repeat=2):
        minor = minors.without(row, column)
        found[column][row] = op.Div(op.Neg(minor) if (row + column) % 2 else minor, whole)
    return _matrix(found)


def solve(matrix: Any, right: Any, *, left: bool = True) -> Any:
    """``matrix @ x = right``, or ``x @ matrix = right``."""
    inverted, wide = _inverse(matrix), op.Cast(right, to=_WIDE)
    vector = len(right.shape) == 1 or (
        len(right.shape) == len(matrix.shape) - 1 and list(right.shape) == list(matrix.shape)[:-1]
    )
    if vector:
        wide = op.Unsqueeze(wide, constant([-1]))
    found = op.MatMul(inverted, wide) if left else op.MatMul(wide, inverted)
    if vector:
        found = op.Squeeze(found, constant([-1]))
    return op.Cast(found, to=matrix.dtype)


def inverse_ex(matrix: Any, *, check_errors: bool = False) -> Any:  # noqa: ARG001
    """The inverse, and whether there is none: 0, or the number of rows."""
    return inverse(matrix), _singular(matrix)


def solve_ex(
    matrix: Any,
    right: Any,
    *,
    left: bool = True,
    check_errors: bool = False,  # noqa: ARG001 (a file raises no errors)
) -> Any:
    """As :func:`solve`, and whether there is no inverse."""
    return solve(matrix, right, left=left), _singular(matrix)


def _singular(matrix: Any) -> Any:
    """0 where a matrix has an inverse, else its number of rows, the last pivot, which is 0."""
    none = op.Equal(_Minors(_entries(matrix)).whole, constant(0.0, _WIDE))
    size = constant(matrix.shape[-1], ir.DataType.INT32)
    return op.Mul(op.Cast(none, to=ir.DataType.INT32), size)


def cholesky_ex(matrix: Any, *, upper: bool = False, check_errors: bool = False) -> Any:  # noqa: ARG001
    """As :func:`cholesky`, and the first row at which there is no root, counted from 1; else 0."""
    found, rests = _cholesky(matrix)
    info = constant(0, ir.DataType.INT32)
    for number, rest in reversed(list(enumerate(rests, 1))):
        there = op.Greater(rest, constant(0.0, _WIDE))
        info = op.Where(there, info, constant(number, ir.DataType.INT32))
    return _triangle(found, matrix, upper=upper), info


def cholesky(matrix: Any, *, upper: bool = False) -> Any:
    """The lower triangle whose product with its transpose is the matrix; NaN if there is none."""
    return _triangle(_cholesky(matrix)[0], matrix, upper=upper)


def _cholesky(matrix: Any) -> tuple[Entries, list[Any]]:
    """The triangle's entries, and the squares of those on its diagonal."""
    m = _entries(matrix)
    size = len(m)
    zero = op.Mul(m[0][0], constant(0.0, _WIDE))
    found: Entries = [[zero] * size for _ in range(size)]
    squares = []
    for row in range(size):
        for column in range(row + 1):
            rest = m[row][column]
            for n in range(column):
                rest = op.Sub(rest, op.Mul(found[row][n], found[column][n]))
            if row == column:
                squares.append(rest)
                found[row][column] = op.Sqrt(rest)
            else:
                found[row][column] = op.Div(rest, found[column][column])
    return found, squares


def _triangle(found: Entries, matrix: Any, *, upper: bool) -> Any:
    if upper:
        found = [list(row) for row in zip(*found, strict=True)]
    return op.Cast(_matrix(found), to=matrix.dtype)


def cholesky_plain(matrix: Any, upper: bool = False) -> Any:
    """As :func:`cholesky`."""
    return cholesky(matrix, upper=upper)


_NONE = "no translation"

ROWS = (
    Row("linalg.det", ("aten::linalg_det", "aten::det"), det, "missing", _NONE, _SINGLE),
    Row(
        "linalg.slogdet",
        ("aten::linalg_slogdet", "aten::slogdet"),
        slogdet,
        "missing",
        _NONE,
        _SINGLE,
    ),
    Row("linalg.inv", ("aten::linalg_inv", "aten::inverse"), inverse, "missing", _NONE, _SINGLE),
    Row("linalg.inv_ex", ("aten::linalg_inv_ex",), inverse_ex, "missing", _NONE, _SINGLE),
    Row("linalg.solve", ("aten::linalg_solve",), solve, "missing", _NONE, _SINGLE),
    Row("linalg.solve_ex", ("aten::linalg_solve_ex",), solve_ex, "missing", _NONE, _SINGLE),
    Row("linalg.cholesky", ("aten::linalg_cholesky",), cholesky, "missing", _NONE, _SINGLE),
    Row(
        "linalg.cholesky_ex", ("aten::linalg_cholesky_ex",), cholesky_ex, "missing", _NONE, _SINGLE
    ),
    Row("cholesky", ("aten::cholesky",), cholesky_plain, "missing", _NONE, _SINGLE),
)
