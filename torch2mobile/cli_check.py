"""The commands of the linter: check, explain, rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from torch2mobile.cli_options import (
    Number,
    common,
    complete_source,
    fix_dim_option,
    parse_sizes,
    report_option,
    reporting,
    request_of,
    source_options,
)
from torch2mobile.cli_progress import observer_of
from torch2mobile.cli_support import echo_table, finish, in_width
from torch2mobile.errors import ExitCode


def complete_code(_ctx: Any, _param: Any, incomplete: str) -> list[str]:
    """The rules' codes, for the shell's completion."""
    from torch2mobile.validators.coverage.rules import RULES

    return [code for code in RULES if code.startswith(incomplete.upper())]


@click.command()
@click.argument("source", metavar="SOURCE", shell_complete=complete_source)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A mobile runtime that it is to be converted for: ort looks at the ONNX that it becomes; "
    "see 'torch2mobile targets'.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="An accelerator that ONNX Runtime shall use, e.g. nnapi.",
)
@source_options
@click.option(
    "--seed",
    type=Number("seed"),
    default=0,
    show_default=True,
    help="Of the example and of random weights.",
)
@click.option(
    "--select",
    multiple=True,
    metavar="CODE",
    shell_complete=complete_code,
    help="Report only these codes, or codes that begin so.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="CODE",
    shell_complete=complete_code,
    help="Leave out these codes, or codes that begin so.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    default="error",
    show_default=True,
    help="The least severity for exit code 1.",
)
@click.option(
    "--ort-version", metavar="X.Y", help="The app's ONNX Runtime.  [default: the installed one]"
)
@click.option(
    "--opset",
    type=Number("opset"),
    help="Look at the ONNX of this opset.  [default: the exporter's]",
)
@click.option(
    "--no-mend", is_flag=True, help="Leave every operator to torch.onnx; see 'translations'."
)
@fix_dim_option("Look again with this size fixed, e.g. N=1.")
@report_option
@reporting
def check(source: str, **options: Any) -> int:
    """Check whether SOURCE can be exported, and if not, which lines are in the way.

    SOURCE is a module as for export, an .onnx file or a bundle. Nothing is converted or written.

    \b
    Example:
      torch2mobile check models.py:MyNet --input 'x:float32[N,3,64,64]'
      torch2mobile check model.onnx --provider nnapi --fix-dim N=1 --format sarif
    """
    from torch2mobile.pipeline.check import check_request
    from torch2mobile.pipeline.check_options import CheckOptions
    from torch2mobile.pipeline.config import read_selection
    from torch2mobile.records import ParityOptions, Severity

    request = request_of(source, options, parity=ParityOptions(seed=options["seed"]))
    chosen = CheckOptions(
        targets=options["targets"],
        providers=options["providers"],
        selection=read_selection(Path(), select=options["select"], ignore=options["ignore"]),
        fail_on=Severity(options["fail_on"]),
        ort_version=options["ort_version"],
        fixed=parse_sizes(options["fix_dims"]),
        opset=options["opset"],
        mend=not options["no_mend"],
    )
    result = check_request(request, chosen, observer=observer_of(options))
    return finish(result.report, options)


@click.command()
@click.argument("code", shell_complete=complete_code)
@common
def explain(code: str, **options: Any) -> int:
    """Explain CODE, a rule of check: why it is there, and what to write instead.

    \b
    Example:
      torch2mobile explain T2M101
    """
    from torch2mobile.validators.coverage.rules import pages
    from torch2mobile.validators.coverage.selection import find_rule

    text = pages.render(find_rule(code), options["form"])
    click.echo(text if options["form"] == "json" else in_width(text), nl=False)
    return int(ExitCode.PASSED)


@click.command()
@common
def rules(**options: Any) -> int:
    """List the rules of check; 'explain CODE' has more on each.

    \b
    Example:
      torch2mobile rules
    """
    from torch2mobile.validators.coverage.rules import RULES

    rows = [
        {
            "code": rule.code,
            "severity": rule.severity.value,
            "name": rule.name,
            "summary": rule.summary,
        }
        for rule in RULES.values()
    ]
    echo_table(rows, options["form"])
    return int(ExitCode.PASSED)


COMMANDS: tuple[click.Command, ...] = (check, explain, rules)
