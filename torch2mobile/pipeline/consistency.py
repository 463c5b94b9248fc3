"""Refuses what a request cannot mean, for the command line and the API alike."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from torch2mobile import limits
from torch2mobile.errors import UsageError
from torch2mobile.exporter.bundle import refuse_undecodable
from torch2mobile.records import (
    ABOUT_MODULE,
    MIN_CAUGHT,
    Match,
    ParityOptions,
    Request,
    Scrutiny,
)


def check_request(request: Request) -> None:
    """UsageError for a number of a request that is outside of its range."""
    limits.check_number("simplify_timeout", request.simplify_timeout)
    if request.opset is not None:
        limits.check_number("opset", request.opset)
    check_parity(request.parity)
    if request.stop_before and request.output_of:
        raise UsageError(
            "both --stop-before and --output-of say where the module ends", "Give one of them."
        )


def check_parity(options: ParityOptions) -> None:
    """UsageError for probes, a seed, a time-out or a tolerance outside of its range."""
    limits.check_number("probes", options.probes)
    limits.check_number("seed", options.seed)
    limits.check_number("timeout", options.timeout)
    for output, tolerance in options.tolerances.items():
        limits.check_number("atol", tolerance.atol, of=output)
        limits.check_number("rtol", tolerance.rtol, of=output)


def check_verification(
    path: Path,
    request: Request,
    scrutiny: Scrutiny,
    baseline: Path | None,
    match: Match | None,
    *,
    alone: bool,
) -> None:
    """UsageError for what a verification of this file or bundle cannot mean.

    ``alone`` without the module: a bundle is then replayed on its golden data.
    """
    check_request(request)
    if baseline is not None and not path.is_dir():
        raise UsageError(
            f"{path} is no bundle, and only bundles can be compared with a baseline",
            "Give a bundle's folder, or leave out --baseline.",
        )
    if match not in {None, *get_args(Match)}:
        raise UsageError(f"match is {match!r}", "Give 'name' or 'position'.")
    if alone:
        _refuse_alone(path, request, scrutiny, match)
    if match is not None and path.is_dir():
        raise UsageError(
            f"{path} is a bundle, and its manifest has the names",
            "Leave out --match, or give a file.",
        )
    _check_scrutiny(path, scrutiny)


def _refuse_alone(path: Path, request: Request, scrutiny: Scrutiny, match: Match | None) -> None:
    """Without a module, what is said about one would be ignored."""
    usual, asked = ParityOptions(), request.parity
    about_the_module = {flag: getattr(request, name) for name, flag in ABOUT_MODULE.items()}
    about_probes = {
        "--probes": asked.probes != usual.probes,
        "--seed": asked.seed != usual.seed,
        "--accept-constant": asked.accept_constant,
        "--mutants": scrutiny.mutants,
        "--search": scrutiny.search is not None,
        "--min-caught": scrutiny.min_caught != MIN_CAUGHT,
        "--match": match,
    }
    refuse_undecodable(path.absolute(), "the bundle")
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no {path}", "Give a bundle's folder, or a file to verify.")
        raise UsageError(
            f"{path} is no bundle: there is nothing to compare it with",
            "Name the module with --against SOURCE (from Python against=), or give a bundle's "
            "folder.",
        )
    for what, options in (("the module", about_the_module), ("probes", about_probes)):
        for option, given in options.items():
            if given:
                raise UsageError(
                    f"{option} says something about {what}, which a bundle's golden data does not "
                    "need",
                    "Name the module with --against SOURCE (from Python against=), or leave it "
                    "out.",
                )


def _check_scrutiny(path: Path, scrutiny: Scrutiny) -> None:
    """Mutants and decisions are of a graph, which an .ort hides."""
    limits.check_number("min_caught", scrutiny.min_caught)
    limits.check_number("mutants", scrutiny.mutants)
    if scrutiny.min_caught != MIN_CAUGHT and not scrutiny.mutants:
        raise UsageError(
            "a least share of mutants to be caught was given, but no mutants were asked for",
            "Add --mutants N, or leave --min-caught out.",
        )
    if scrutiny.asked and path.is_file() and path.suffix == ".ort":
        raise UsageError(
            f"{path.name} is no .onnx: mutants and the search need the graph",
            "Give the .onnx that the .ort was made from, or the bundle.",
        )
