"""The commands that look and change nothing.

targets, translations, inspect, samples, doctor, operators-config, report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from torch2mobile import limits
from torch2mobile.cli_options import FORMATS, common
from torch2mobile.cli_progress import observer_of
from torch2mobile.cli_support import echo_table, finish
from torch2mobile.errors import ExitCode, UsageError


@click.command()
@common
def targets(**options: Any) -> int:
    """List the mobile runtimes: what is there, and how to install what is missing.

    \b
    Example:
      torch2mobile targets
    """
    from torch2mobile.exporter.targets import TARGETS

    rows: list[dict[str, Any]] = []
    for target in TARGETS.values():
        missing = list(target.missing())
        state = "ready" if not missing else f"missing: {'; '.join(missing)}"
        stand_in = target.environment.stand_in
        state = f"{state}; {stand_in}" if stand_in else state
        rows += [
            {
                "name": variant.label,
                "title": target.title,
                "precision": variant.precision,
                "sizes": "the example's" if variant.static else "as declared",
                "batch": "yes" if variant.batch else "no",
                "state": state,
            }
            for variant in target.variants
        ]
    if options["form"] == "json":
        owners = [target for target in TARGETS.values() for _ in target.variants]
        rows = [row | vars(owner.limits) for row, owner in zip(rows, owners, strict=True)]
    echo_table(rows, options["form"])
    if options["form"] == "text":
        click.echo()
        echo_table([{"target": t.name} | vars(t.limits) for t in TARGETS.values()], "text")
    return int(ExitCode.PASSED)


@click.command()
@click.argument("artifact", type=click.Path())
@click.option("--node", metavar="NAME", help="Where this node or value comes from.")
@common
def inspect(artifact: str, node: str | None, **options: Any) -> int:
    """Show what is in ARTIFACT, an .onnx or a bundle: ops, inputs, outputs, size.

    \b
    Example:
      torch2mobile inspect dist/super_resolution
      torch2mobile inspect dist/super_resolution --node node_conv2d
    """
    from torch2mobile.pipeline import inspection

    if node is None:
        click.echo(inspection.render(inspection.inspect(Path(artifact)), options["form"]))
    else:
        echo_table(inspection.origins_of(Path(artifact), node), options["form"])
    return int(ExitCode.PASSED)


@click.command()
@common
def translations(**options: Any) -> int:
    """List the operators that export translates in place of torch.onnx, and why.

    \b
    Example:
      torch2mobile translations
    """
    from torch2mobile.exporter.translations import ROWS

    rows: list[dict[str, Any]] = [
        {
            "operator": row.name,
            "torch.onnx's": row.fault,
            "torch": row.versions,
            "dtypes": " ".join(row.dtypes),
            "what": row.what,
        }
        for row in ROWS
    ]
    if options["form"] == "json":
        for shown, row in zip(rows, ROWS, strict=True):
            shown |= {
                "operators": list(row.operators),
                "dtypes": list(row.dtypes),
                "link": row.link,
            }
    echo_table(rows, options["form"])
    return int(ExitCode.PASSED)


@click.command()
@common
def samples(**options: Any) -> int:
    """List the sample models; the awkward ones show how a failure looks.

    \b
    Example:
      torch2mobile samples
    """
    from torch2mobile.sample_models import SAMPLES

    rows = [
        {"source": f"sample:{name}", "export exits": sample.expect_exit, "title": sample.title}
        for name, sample in SAMPLES.items()
    ]
    echo_table(rows, options["form"])
    return int(ExitCode.PASSED)


@click.command()
@click.option(
    "--install",
    type=click.Choice(["arm64", "web", "litert"]),
    help="Make this in your cache first: an emulated ARM64 at the versions of this Python, "
    "onnxruntime-web for Node, or what the target litert needs.",
)
@common
def doctor(install: str | None, **options: Any) -> int:
    """Show the versions of all tools, what is missing, and what installs it.

    Exits 3 where something that export needs is missing, or could not be installed.

    \b
    Example:
      torch2mobile doctor
      torch2mobile doctor --install arm64
    """
    from torch2mobile.pipeline import on_devices
    from torch2mobile.pipeline.installed_tools import extras, installed

    if install is not None:
        progress = observer_of(options)
        on_devices.install(install, lambda what: progress.started(f"install {what}"))
        progress.clear()
    tools = [*installed(), *extras(), *on_devices.as_tools()]
    rows = [
        {
            "tool": t.name,
            "version": t.version or ("missing" if t.needed else "not installed"),
            "install": "" if t.version and t.whole else t.command,
        }
        for t in tools
    ]
    echo_table(rows, options["form"])
    complete = all(tool.version for tool in tools if tool.needed)
    return int(ExitCode.PASSED if complete else ExitCode.STAGE)


@click.command("operators-config")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", required=True, metavar="FILE", type=click.Path(), help="The file.")
@click.option(
    "--ort-version",
    metavar="VERSION",
    help="The release of ONNX Runtime in the app: warn where it is too old for the files.",
)
@common
def operators_config(bundles: tuple[str, ...], out: str, **options: Any) -> int:
    """Write one operators.config for all BUNDLEs, for a reduced ONNX Runtime.

    \b
    Example:
      torch2mobile operators-config dist/super_resolution -o operators.config
    """
    from torch2mobile.pipeline import operators_config

    version = options["ort_version"]
    warnings = operators_config.operators_config(
        [Path(bundle) for bundle in bundles], Path(out), ort_version=version
    )
    echo_table([{"written": out, "bundles": len(bundles)}], options["form"])
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    return int(ExitCode.PASSED)


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="What is printed on stdout.",
)
@click.option("-v", "--verbose", is_flag=True, help="The details of what passed too, in the text.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def report(
    file: str,
    form: str,
    verbose: bool,
    debug: bool,  # noqa: ARG001 (main() reads --debug)
) -> int:
    """Render FILE, a saved report or a bundle with its own, in another format.

    \b
    Example:
      torch2mobile report dist/super_resolution --format html
    """
    from torch2mobile.exporter.bundle import REPORT
    from torch2mobile.reporters.codec import from_json

    path = Path(file)
    path = path / REPORT if path.is_dir() else path
    try:
        raw = limits.read_regular(path)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "Give a file that --report wrote, or a bundle."
        ) from error
    finish(from_json(raw, name=str(path)), {"form": form, "verbose": verbose})
    return int(ExitCode.PASSED)


COMMANDS: tuple[click.Command, ...] = (
    targets,
    translations,
    inspect,
    samples,
    doctor,
    operators_config,
    report,
)
