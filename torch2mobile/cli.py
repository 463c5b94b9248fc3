"""The command line: parse, call, print, exit code. torch is loaded by the commands that need it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from torch2mobile import __version__, cli_check, cli_inspect, cli_verify, interrupts
from torch2mobile.cli_options import (
    Number,
    complete_source,
    constant_option,
    device_option,
    fix_dim_option,
    make_parity,
    parity_options,
    parse_sizes,
    report_option,
    reporting,
    request_of,
    source_options,
    strict_option,
)
from torch2mobile.cli_progress import clear_progress, observer_of
from torch2mobile.cli_support import bug, complain, finish
from torch2mobile.errors import ExitCode, Torch2MobileError

_WIDTH = 100


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDTH})
@click.version_option(__version__, prog_name="torch2mobile")
def cli() -> None:
    """Take a PyTorch module to ONNX and mobile runtimes, and prove that it arrived intact.

    \b
    Example:
      torch2mobile export sample:super_resolution
      torch2mobile verify dist/super_resolution

    Exit codes: 0 passed, 1 a check failed, 2 usage, 3 a stage could not finish, 4 a bug in
    torch2mobile, 130 interrupted, 143 terminated.
    """


@cli.command()
@click.argument("source", shell_complete=complete_source)
@click.option("--out", type=click.Path(), help="The bundle's folder.  [default: dist/NAME]")
@source_options
@click.option(
    "--opset", type=Number("opset"), help="The ONNX opset; honoured or refused, never replaced."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=["ort"],
    show_default=True,
    help="A mobile runtime to convert for, or all; see 'torch2mobile targets'.",
)
@device_option
@strict_option
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    metavar="CODE",
    help="Apply this rule's remedy to what is exported, where it has a mechanical one.",
)
@click.option(
    "--no-mend", is_flag=True, help="Leave every operator to torch.onnx; see 'translations'."
)
@click.option("--no-simplify", is_flag=True, help="Leave the model as torch.onnx writes it.")
@click.option(
    "--simplify-timeout",
    type=Number("simplify_timeout"),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up one way to simplify after this time, and try the next.",
)
@click.option("--external-data", is_flag=True, help="Keep the weights in a file of their own.")
@constant_option
@parity_options
@report_option
@reporting
def export(source: str, **options: Any) -> int:
    """Export SOURCE to a bundle, and prove that it equals the module.

    SOURCE is package.module:attr, path/to/file.py:attr, sample:NAME, timm:NAME, hf:NAME or
    model.pt2; attr is a Module, a Module class or a function that returns one.

    \b
    Example:
      torch2mobile export models.py:MyNet --weights my.safetensors \\
        --input 'image:float32[N=1..8,3,H=64..512,W=64..512]' \\
        --values 'image=uniform(0,1)'
    """
    from torch2mobile.pipeline.config import read_export
    from torch2mobile.pipeline.export import export_request

    project = read_export(Path())
    for name in ("state", "data", "preprocess", "tokenizer"):
        options[name] = options[name] or getattr(project, name)
    request = request_of(
        source,
        options,
        opset=options["opset"],
        simplify=not options["no_simplify"],
        simplify_timeout=options["simplify_timeout"],
        external_data=options["external_data"],
        targets=options["targets"],
        devices=options["devices"],
        strict=options["strict"],
        rewrites=(*project.rewrite, *options["rewrites"]),
        mend=not options["no_mend"],
        parity=make_parity(options),
    )
    out = Path(options["out"]) if options["out"] else None
    result = export_request(request, out=out, observer=observer_of(options))
    return finish(result.report, options)


@cli.command()
@click.argument("source", metavar="IN", type=click.Path())
@click.argument("target", metavar="OUT", type=click.Path())
@click.option("--values", multiple=True, metavar="SPEC", help="Values an input can take.")
@click.option(
    "--simplify-timeout",
    type=Number("simplify_timeout"),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up one way after this time, and try the next.",
)
@fix_dim_option("Write a file for this size alone, e.g. N=1, with what follows from it folded.")
@parity_options
@report_option
@reporting
def simplify(source: str, target: str, **options: Any) -> int:
    """Simplify IN.onnx to OUT.onnx, written only if it is still the same function.

    \b
    Example:
      torch2mobile simplify model.onnx smaller.onnx --values 'ids=0..30521'
    """
    from torch2mobile.pipeline import simplify_file

    result = simplify_file.simplify(
        source,
        target,
        values=options["values"],
        parity=make_parity(options),
        timeout=options["simplify_timeout"],
        fix_dims=parse_sizes(options["fix_dims"]),
        observer=observer_of(options),
    )
    return finish(result.report, options)


for command in (*cli_check.COMMANDS, *cli_verify.COMMANDS, *cli_inspect.COMMANDS):
    cli.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; every exception ends here."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with interrupts.handled() as stop:
        code, trace = _run(words, stop)
        if "--debug" in words:
            click.echo(trace, err=True, nl=False)
    return code


def _run(words: Sequence[str], stop: interrupts.Stop) -> tuple[int, str]:
    """The exit code, and the traceback of what was raised."""
    # Where nothing says how wide it is (a pipe, a CI log), click takes 80 and cuts the help.
    known = shutil.get_terminal_size((0, 0)).columns
    try:
        result = cli.main(
            list(words),
            prog_name="torch2mobile",
            standalone_mode=False,
            terminal_width=None if known else _WIDTH,
        )
        return int(result or 0), ""
    except Torch2MobileError as error:
        complain(error)
        return int(error.exit_code), traceback.format_exc()
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE), ""
    except (click.Abort, KeyboardInterrupt):
        clear_progress()
        what = "what was written is whole" if stop.settled else "nothing was written"
        click.echo(f"interrupted; {what}", err=True)
        return stop.exit_code, ""
    except Exception as error:  # noqa: BLE001 (the last line of defence: exit code 4)
        return bug(error), traceback.format_exc()


def main() -> None:
    """The console script.

    Leaves by os._exit once everything is flushed: taking down torch's hundreds of modules costs
    half a second, and there is nothing left for it to do. Importing torch and capturing a graph
    make hundreds of thousands of objects that live to the end: looking through them for garbage
    every 700 allocations, Python's default, is a tenth of an export. Threads that wait for others
    sleep: where a machine is shared, as CI's are, spinning takes the time of those they wait for.
    """
    gc.set_threshold(100_000, 20, 20)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = run()
    for number in interrupts.SIGNALS:
        # The verdict is out, and stands.
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
