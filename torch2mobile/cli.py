"""The command line: parse, call, print, exit code. torch is loaded by the commands that need it."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from torch2mobile import __version__, cli_looking
from torch2mobile.cli_support import (
    bug,
    common,
    complain,
    finish,
    make_parity,
    observer_of,
    parity_options,
    source_options,
)
from torch2mobile.errors import ExitCode, Torch2MobileError, UsageError
from torch2mobile.isolation import REPLAY_MODULES, Worker


def _complete_source(_ctx: Any, _param: Any, incomplete: str) -> list[str]:
    from torch2mobile.sample_models import SAMPLES

    names = [f"sample:{name}" for name in SAMPLES]
    return [name for name in names if name.startswith(incomplete)]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="torch2mobile")
def cli() -> None:
    """Take a PyTorch module to ONNX and mobile runtimes, and prove that it arrived intact.

    \b
    Example:
      torch2mobile export sample:super_resolution
      torch2mobile verify dist/super_resolution

    Exit codes: 0 passed, 1 a check failed, 2 usage, 3 a stage could not finish, 4 a bug in
    torch2mobile, 130 interrupted.
    """


@cli.command()
@click.argument("source", shell_complete=_complete_source)
@click.option("--out", type=click.Path(), help="The bundle's folder.  [default: dist/NAME]")
@source_options
@click.option("--opset", type=int, help="The ONNX opset; honoured or refused, never replaced.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=["ort"],
    show_default=True,
    help="A mobile runtime to convert for; see 'torch2mobile targets'.",
)
@click.option("--no-simplify", is_flag=True, help="Leave the model as torch.onnx writes it.")
@click.option(
    "--simplify-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Go on with the unsimplified model after this time.",
)
@click.option("--external-data", is_flag=True, help="Keep the weights in a file of their own.")
@parity_options
@click.option("--report", type=click.Path(), help="Write the report's JSON here, passed or not.")
@common
def export(source: str, **options: Any) -> int:
    """Export SOURCE to a bundle, and prove that it equals the module.

    SOURCE is package.module:attr, path/to/file.py:attr, sample:NAME or model.pt2; attr is a
    Module, a Module class or a function that returns one.

    \b
    Example:
      torch2mobile export models.py:MyNet --weights my.safetensors \\
        --input 'image:float32[N=1..8,3,H=64..512,W=64..512]' --values 'image=uniform(0,1)'
    """
    from torch2mobile.pipeline.export import export_request
    from torch2mobile.records import Request

    request = Request(
        source=source,
        weights=options["weights"],
        inputs=options["inputs"],
        values=options["values"],
        data=options["data"],
        opset=options["opset"],
        simplify=not options["no_simplify"],
        simplify_timeout=options["simplify_timeout"],
        external_data=options["external_data"],
        targets=tuple(options["targets"]),
        parity=make_parity(options),
    )
    out = Path(options["out"]) if options["out"] else None
    result = export_request(request, out=out, observer=observer_of(options))
    return finish(result.report, options)


@cli.command()
@click.argument("artifact", type=click.Path())
@click.option(
    "--against",
    metavar="SOURCE",
    shell_complete=_complete_source,
    help="The module to compare with, as for export; the whole comparison on fresh probes.",
)
@source_options
@parity_options
@click.option("--report", type=click.Path(), help="Write the report's JSON here, passed or not.")
@common
def verify(artifact: str, against: str | None, **options: Any) -> int:
    """Verify ARTIFACT: a bundle, or an .onnx or .ort file with --against SOURCE.

    A bundle alone is replayed on its golden data, without torch.

    \b
    Example:
      torch2mobile verify dist/super_resolution
      torch2mobile verify model.onnx --against models.py:MyNet --input 'x:float32[N,3,64,64]'
    """
    path, observer = Path(artifact), observer_of(options)
    if against is None:
        _refuse_lonely(path, options)
        # onnxruntime loads in its process while the rest of the program does so in this one.
        with Worker(preload=REPLAY_MODULES) as worker:
            from torch2mobile.pipeline import verify as verification

            result = verification.verify_bundle(
                path, options=make_parity(options), observer=observer, worker=worker
            )
        return finish(result.report, options)
    from torch2mobile.pipeline import verify as verification
    from torch2mobile.records import Request

    request = Request(
        source=against,
        weights=options["weights"],
        inputs=options["inputs"],
        values=options["values"],
        data=options["data"],
        parity=make_parity(options),
    )
    check = (
        verification.verify_bundle_against if path.is_dir() else verification.verify_model_against
    )
    result = check(path, request, observer=observer)
    return finish(result.report, options)


def _refuse_lonely(path: Path, options: dict[str, Any]) -> None:
    """Without a module, options about the module would be ignored: refuse them."""
    if path.is_file():
        raise UsageError(
            f"{path} is a file: there is nothing to compare it with",
            "Name the module with --against SOURCE, or give a bundle's folder.",
        )
    given = [name for name in ("weights", "inputs", "values", "data") if options[name]]
    if given:
        raise UsageError(
            f"--{given[0].removesuffix('s') if given[0] == 'inputs' else given[0]} says something "
            "about the module, which a bundle's golden data does not need",
            "Add --against SOURCE, or leave it out.",
        )
    context = click.get_current_context()
    for name in ("probes", "seed"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--{name} makes probes, which need the module",
                "Add --against SOURCE, or leave it out.",
            )


@cli.command()
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@click.option("--values", multiple=True, metavar="SPEC", help="Values an input can take.")
@click.option(
    "--simplify-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this time.",
)
@parity_options
@click.option("--report", type=click.Path(), help="Write the report's JSON here, passed or not.")
@common
def simplify(source: str, target: str, **options: Any) -> int:
    """Simplify IN.onnx to OUT.onnx, written only if it is still the same function.

    \b
    Example:
      torch2mobile simplify model.onnx model.simplified.onnx --values 'ids=0..30521'
    """
    from torch2mobile.pipeline.simplify import simplify_file

    result = simplify_file(
        Path(source),
        Path(target),
        values=options["values"],
        options=make_parity(options),
        timeout=options["simplify_timeout"],
        observer=observer_of(options),
    )
    return finish(result.report, options)


for command in cli_looking.COMMANDS:
    cli.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; every exception ends here."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        result = cli.main(words, prog_name="torch2mobile", standalone_mode=False)
        return int(result or 0)
    except Torch2MobileError as error:
        complain(error)
        code, trace = int(error.exit_code), traceback.format_exc()
    except click.ClickException as error:
        error.show()
        code, trace = int(ExitCode.USAGE), ""
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was written", err=True)
        code, trace = int(ExitCode.INTERRUPTED), ""
    except Exception as error:  # noqa: BLE001 (the last line of defence: exit code 4)
        code, trace = bug(error), traceback.format_exc()
    if debug:
        click.echo(trace, err=True, nl=False)
    return code


def main() -> None:
    """The console script.

    Leaves by os._exit once everything is flushed: taking down torch's hundreds of modules costs
    half a second, and there is nothing left for it to do. Importing torch and capturing a graph
    make hundreds of thousands of objects that live to the end: looking through them for garbage
    every 700 allocations, Python's default, is a tenth of an export.
    """
    gc.set_threshold(100_000, 20, 20)
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
