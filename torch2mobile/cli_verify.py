"""The commands that judge what is already there: verify and debug."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch2mobile.cli_support import (
    Number,
    complete_source,
    constant_option,
    finish,
    make_parity,
    observer_of,
    parity_options,
    report_option,
    reporting,
    source_options,
)
from torch2mobile.environments import REPLAY_MODULES, Worker
from torch2mobile.errors import UsageError
from torch2mobile.records import MIN_CAUGHT

if TYPE_CHECKING:
    from torch2mobile.records import Request


@click.command()
@click.argument("artifact", type=click.Path())
@click.option(
    "--against",
    metavar="SOURCE",
    shell_complete=complete_source,
    help="The module to compare with, as for export; the whole comparison on fresh probes.",
)
@click.option(
    "--baseline",
    metavar="EARLIER",
    type=click.Path(),
    help="An earlier bundle, or its manifest.json: what drifted since, and what changed.",
)
@source_options
@click.option(
    "--match",
    type=click.Choice(["name", "position"]),
    help="For a file: take its inputs and outputs by name, a part of its contract (the default), "
    "or by position, for a file from elsewhere.",
)
@click.option(
    "--mutants",
    type=Number("mutants"),
    default=0,
    show_default=True,
    metavar="N",
    help="Needs --against: put N small faults, controls among them, into the .onnx, and report how "
    "many would be caught; a control is no fault, and must pass.",
)
@click.option(
    "--search/--no-search",
    default=None,
    help="Search for inputs that take decisions both ways. Default: with --mutants.",
)
@click.option(
    "--min-caught",
    type=Number("min_caught"),
    default=MIN_CAUGHT,
    show_default=True,
    metavar="SHARE",
    help="With --mutants: fail if a smaller share of them is caught.",
)
@constant_option
@parity_options
@report_option
@reporting
def verify(artifact: str, against: str | None, baseline: str | None, **options: Any) -> int:
    """Verify ARTIFACT: a bundle, or an .onnx or .ort file with --against SOURCE.

    A bundle alone is replayed on its golden data, without torch.

    \b
    Example:
      torch2mobile verify dist/super_resolution --baseline released/super_resolution
      torch2mobile verify model.onnx --against models.py:MyNet --input 'x:float32[N,3,64,64]'
      torch2mobile verify dist/MyNet --against models.py:MyNet --mutants 50
    """
    path, observer = Path(artifact), observer_of(options)
    earlier = Path(baseline) if baseline else None
    if earlier is not None and not path.is_dir():
        raise UsageError(
            f"{path} is no bundle, and only bundles can be compared with a baseline",
            "Give a bundle's folder, or leave out --baseline.",
        )
    if against is None:
        _refuse_lonely(path, options)
        # onnxruntime loads in its process while the rest of the program does so in this one.
        with Worker(preload=REPLAY_MODULES) as worker:
            from torch2mobile.pipeline import verify as verification

            result = verification.verify_bundle(
                path,
                options=make_parity(options),
                baseline=earlier,
                observer=observer,
                worker=worker,
            )
        return finish(result.report, options)
    from torch2mobile.pipeline import verify as verification
    from torch2mobile.pipeline.mutation import Scrutiny

    if _typed("min_caught") and not options["mutants"]:
        raise UsageError(
            "--min-caught is a share of mutants, and none were asked for",
            "Add --mutants N, or leave it out.",
        )
    scrutiny = Scrutiny(options["mutants"], options["search"], options["min_caught"])
    result = verification.verify_against(
        path,
        _request(against, options),
        baseline=earlier,
        scrutiny=scrutiny,
        observer=observer,
        match=options["match"],
    )
    return finish(result.report, options)


def _request(against: str, options: dict[str, Any]) -> Request:
    from torch2mobile.records import Request

    return Request(
        source=against,
        weights=options["weights"],
        inputs=options["inputs"],
        values=options["values"],
        data=options["data"],
        trust=options["trust"],
        drop_outputs=options["drop_outputs"],
        parity=make_parity(options),
    )


@click.command()
@click.argument("artifact", type=click.Path())
@click.option(
    "--against",
    metavar="SOURCE",
    required=True,
    shell_complete=complete_source,
    help="The module to compare with, as for export.",
)
@click.option(
    "--probe", default="", metavar="LABEL", help="Look at this probe, not at the first that fails."
)
@source_options
@parity_options
@report_option
@reporting
def debug(artifact: str, against: str, probe: str, **options: Any) -> int:
    """Find the first node of ARTIFACT, a bundle or an .onnx, that is not the module's.

    \b
    Example:
      torch2mobile debug dist/super_resolution --against sample:super_resolution
      torch2mobile debug model.onnx --against models.py:MyNet --input 'x:float32[N,3,64,64]'
    """
    from torch2mobile.pipeline.debugging import debug_against

    observer = observer_of(options)
    request = _request(against, options)
    result = debug_against(Path(artifact), request, probe=probe, observer=observer)
    return finish(result.report, options)


_ABOUT_THE_MODULE = {
    "weights": "--weights",
    "inputs": "--input",
    "values": "--values",
    "data": "--data",
    "trust": "--trust",
    "drop_outputs": "--drop-output",
}
_ABOUT_PROBES = {
    "probes": "--probes",
    "seed": "--seed",
    "mutants": "--mutants",
    "search": "--search",
    "min_caught": "--min-caught",
    "accept_constant": "--accept-constant",
    "match": "--match",
}


def _typed(name: str) -> bool:
    """Whether an option was given on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _refuse_lonely(path: Path, options: dict[str, Any]) -> None:
    """Without a module, options about the module would be ignored: refuse them."""
    if path.is_file():
        raise UsageError(
            f"{path} is a file: there is nothing to compare it with",
            "Name the module with --against SOURCE, or give a bundle's folder.",
        )
    given = [name for name in _ABOUT_THE_MODULE if options[name]]
    if given:
        raise UsageError(
            f"{_ABOUT_THE_MODULE[given[0]]} says something "
            "about the module, which a bundle's golden data does not need",
            "Add --against SOURCE, or leave it out.",
        )
    for name, option in _ABOUT_PROBES.items():
        if _typed(name):
            raise UsageError(
                f"{option} is about probes, which need the module",
                "Add --against SOURCE, or leave it out.",
            )


COMMANDS: tuple[click.Command, ...] = (verify, debug)
