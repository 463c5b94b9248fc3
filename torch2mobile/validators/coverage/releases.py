"""What earlier releases of ONNX Runtime take: opsets, IR version, .ort format.

Their lists of kernels are in no table: of an earlier release only these limits are known, and that
a node's operator is not newer than its opset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch2mobile.errors import UsageError

SOURCE = "https://onnxruntime.ai/docs/reference/compatibility.html"
ORT_FORMAT_SOURCE = (
    "https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html"
)
WRITTEN_ORT_FORMAT = 6
"""The format of the .ort files that the installed onnxruntime writes."""


@dataclass(frozen=True)
class Release:
    """The newest opset (of ONNX, of ai.onnx.ml), IR version and .ort format of one release."""

    version: str
    opset: int
    ml_opset: int
    ir: int
    ort_format: int
    exact: bool = True


# 1.6 to 1.20: SOURCE. 1.21: built with ONNX 1.17 (microsoft/onnxruntime#21897), whose opset and IR
# version are in onnx.helper.VERSION_TABLE. .ort: ORT_FORMAT_SOURCE; 6 began with 1.16 (#20670).
RELEASES: tuple[Release, ...] = (
    Release("1.6", 13, 2, 7, 2),
    Release("1.7", 13, 2, 7, 3),
    Release("1.8", 14, 2, 7, 4),
    Release("1.9", 15, 2, 8, 4),
    Release("1.10", 15, 2, 8, 4),
    Release("1.11", 16, 2, 8, 4),
    Release("1.12", 17, 3, 8, 4),
    Release("1.13", 17, 3, 8, 5),
    Release("1.14", 18, 3, 8, 5),
    Release("1.15", 19, 3, 8, 5),
    Release("1.16", 19, 3, 9, 6),
    Release("1.17", 20, 4, 9, 6),
    Release("1.18", 21, 4, 10, 6),
    Release("1.19", 21, 4, 10, 6),
    Release("1.20", 21, 4, 10, 6),
    Release("1.21", 22, 5, 10, 6),
)


def check_version(version: object) -> None:
    """UsageError for what is no version, such as ``1.17`` or ``1.17.3``."""
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        raise UsageError(f"--ort-version {version}: no version", "Write --ort-version 1.17.")


def numbers(version: str) -> tuple[int, int]:
    """Major and minor number of a version."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def installed() -> Release:
    """The limits of the installed release: those of its operators, and of ONNX's file format."""
    import onnx
    import onnxruntime

    from torch2mobile.validators.coverage import kernels

    return Release(
        onnxruntime.__version__,
        kernels.newest_opset(),
        kernels.newest_opset("ai.onnx.ml"),
        onnx.IR_VERSION,
        WRITTEN_ORT_FORMAT,
    )


def find(version: str) -> Release | None:
    """The limits of a release; None for the installed one, whose kernels are known.

    Between the newest of the table and the installed one, the limits are those of the newest of the
    table, not ``exact``: the release takes at least that. Raises UsageError for any other.
    """
    import onnxruntime

    wanted, installed = numbers(version), numbers(onnxruntime.__version__)
    if wanted == installed:
        return None
    newest = RELEASES[-1]
    for release in RELEASES:
        if numbers(release.version) == wanted:
            return release
    if numbers(newest.version) < wanted < installed:
        limits = (newest.opset, newest.ml_opset, newest.ir, newest.ort_format)
        return Release(version, *limits, exact=False)
    raise UsageError(
        f"--ort-version {version}: what that release takes is not known",
        f"Known are {RELEASES[0].version} to {onnxruntime.__version__}, the installed one.",
    )
