"""The commands that judge what is already there: verify and debug."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from torch2mobile.cli_options import (
    Number,
    complete_source,
    constant_option,
    device_option,
    make_parity,
    parity_options,
    report_option,
    reporting,
    request_of,
    source_options,
    strict_option,
)
from torch2mobile.cli_progress import observer_of
from torch2mobile.cli_support import finish
from torch2mobile.environments import REPLAY_MODULES, Worker
from torch2mobile.records import MIN_CAUGHT


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
@device_option
@strict_option
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
      torch2mobile verify dist/MyNet --baseline released/MyNet
      torch2mobile verify model.onnx --against models.py:MyNet \\
        --input 'x:float32[N,3,64,64]'
      torch2mobile verify dist/MyNet --against models.py:MyNet --mutants 50
    """
    path = Path(artifact)
    # onnxruntime loads in its process while the rest of the program does so in this one.
    alone = against is None and path.is_dir()
    with Worker(preload=REPLAY_MODULES) if alone else nullcontext() as worker:
        from torch2mobile.pipeline import verify as verification
        from torch2mobile.records import Scrutiny

        result = verification.verify(
            path,
            request_of(
                against or "",
                options,
                devices=options["devices"],
                strict=options["strict"],
                parity=make_parity(options),
            ),
            baseline=Path(baseline) if baseline else None,
            scrutiny=Scrutiny(options["mutants"], options["search"], options["min_caught"]),
            observer=observer_of(options),
            match=options["match"],
            worker=worker,
        )
    return finish(result.report, options)


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
    """Find the first node of ARTIFACT (bundle or .onnx) that is not the module's.

    \b
    Example:
      torch2mobile debug dist/super_resolution --against sample:super_resolution
      torch2mobile debug model.onnx --against models.py:MyNet \\
        --input 'x:float32[N,3,64,64]'
    """
    from torch2mobile.pipeline.debugging import debug_against

    observer = observer_of(options)
    request = request_of(against, options, parity=make_parity(options))
    result = debug_against(Path(artifact), request, probe=probe, observer=observer)
    return finish(result.report, options)


COMMANDS: tuple[click.Command, ...] = (verify, debug)
