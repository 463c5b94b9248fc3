"""What all commands share: options, progress on stderr, and what becomes of an exception."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from torch2mobile import interrupts, limits
from torch2mobile.errors import ExitCode, Torch2MobileError

if TYPE_CHECKING:
    from torch2mobile.records import Check, ParityOptions, Report, Tolerance

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("text", "json", "html", "sarif", "github")
"""All formats that a report can be drawn in; reporters.REPORTERS has a row for each."""

_COLOURS = {"passed": "green", "failed": "red", "error": "red", "skipped": "yellow"}


def use_colour(stream: Any) -> bool:
    """Colour only on a terminal, and never with NO_COLOR (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and bool(stream.isatty())


def _one_line(text: str) -> str:
    """One printable line of what may hold foreign text."""
    from torch2mobile.reporters import text_lines

    return text_lines.one_line(text)


def _printable(text: str) -> str:
    """Printable lines, of which only the first begins at the left margin."""
    from torch2mobile.reporters import text_lines

    return re.sub(r"\n(?=\S)", "\n  ", text_lines.printable(text.strip()))


class ProgressObserver:
    """Draws progress on stderr: one changing line on a terminal, one line a stage elsewhere.

    Each has the seconds since the start; the changing line counts them, and the probes. While the
    module runs, what it prints is kept away: the stream is that of the start.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._stream = sys.stderr
        self._live = self._stream.isatty() and verbosity == 0
        self._begun = time.monotonic()
        self._stage = self._probes = ""
        self._writing = threading.Lock()
        if self._live:
            threading.Thread(target=self._count, daemon=True).start()
        self.started("import")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _count(self) -> None:
        while True:
            time.sleep(1)
            self._draw()

    def _draw(self) -> None:
        with self._writing:
            if self._stage:
                text = _one_line(f"{self._stage}{self._probes} ... {self._seconds} s")
                self._write(f"\r\x1b[K{text}")

    @property
    def _seconds(self) -> int:
        return int(time.monotonic() - self._begun)

    def started(self, stage: str) -> None:
        """Name the stage that runs now."""
        interrupts.stop_if_asked()
        if self._verbosity < 0:
            return
        if self._live:
            self._stage, self._probes = stage, ""
            self._draw()
        else:
            self._write(f"[{self._seconds:3d} s] {_one_line(stage)} ...\n")

    def probed(self, done: int, total: int) -> None:
        """Count the probes of the stage that runs now."""
        interrupts.stop_if_asked()
        if self._live:
            self._probes = f", probe {done + 1} of {total}"
            self._draw()

    def clear(self) -> None:
        """Take the changing line away until the next stage."""
        with self._writing:
            self._stage = ""
            if self._live:
                self._write("\r\x1b[K")

    def finished(self, check: Check) -> None:
        """Clear the line; with -v say what was found."""
        self.clear()
        if not self._live and self._verbosity > 0:
            word = click.style(check.status.value, fg=_COLOURS[check.status.value])
            about = " ".join(filter(None, (check.name, check.target, check.device)))
            text = _one_line(f"{about}: {check.summary}")
            self._write(f"  {word if use_colour(sys.stderr) else click.unstyle(word)} {text}\n")
            for found in check.findings:
                if found.suppressed:
                    where = f"{found.location.file}:{found.location.line}"
                    said = _one_line(f"suppressed {found.code} at {where}: {found.suppressed}")
                    self._write(f"    {said}\n")


_observers: list[ProgressObserver] = []


def clear_progress() -> None:
    """Nothing may be drawn over what is printed now."""
    while _observers:
        _observers.pop().clear()


# Without an argument, which only the newest click takes.
class Number(click.ParamType):  # type: ignore[type-arg]
    """A number within the range of its option; everything else is refused as by the API."""

    def __init__(self, option: str) -> None:
        self.name, self._option = "number", option

    def convert(self, value: Any, param: Any, ctx: Any) -> int | float:  # noqa: ARG002 (click's)
        """Read what was typed; UsageError for no number, or one outside of the range."""
        return value if isinstance(value, int | float) else limits.read_number(self._option, value)

    def get_metavar(self, param: Any, ctx: Any) -> str:  # noqa: ARG002 (click's)
        """What help shows for the value."""
        return "N" if limits.RANGES[self._option].whole else "X"


def complete_source(_ctx: Any, _param: Any, incomplete: str) -> list[str]:
    """The samples, for the shell's completion of a source."""
    from torch2mobile.sample_models import SAMPLES

    names = [f"sample:{name}" for name in SAMPLES]
    return [name for name in names if name.startswith(incomplete)]


def common(command: F) -> F:
    """The options that every command takes."""
    return common_with("text", "json")(command)


def reporting(command: F) -> F:
    """The options of a command that gives a report, in any format."""
    return common_with(*FORMATS)(command)


def common_with(*formats: str) -> Callable[[F], F]:
    """The options that every command takes, with these formats."""

    def decorate(command: F) -> F:
        for option in (
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
            click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
            click.option(
                "-v",
                "--verbose",
                is_flag=True,
                help="More progress on stderr, and the details of what passed in the text.",
            ),
            click.option(
                "--format",
                "form",
                type=click.Choice(formats),
                default="text",
                show_default=True,
                help="What is printed on stdout.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def parity_options(command: F) -> F:
    """The options of everything that compares numbers."""
    for option in (
        click.option(
            "--timeout",
            type=Number("timeout"),
            default=300.0,
            show_default=True,
            metavar="SECONDS",
            help="The longest that one call of a converter or runtime may take.",
        ),
        click.option(
            "--seed",
            type=Number("seed"),
            default=0,
            show_default=True,
            help="Of the probes.",
        ),
        click.option(
            "--probes",
            type=Number("probes"),
            default=8,
            show_default=True,
            help="How many probes with other values than the example's.",
        ),
        click.option(
            "--rtol",
            multiple=True,
            metavar="[OUTPUT][@TARGET]=R",
            help="Your own relative tolerance, for one output or target, or for all.",
        ),
        click.option(
            "--atol",
            multiple=True,
            metavar="[OUTPUT][@TARGET]=A",
            help="Your own absolute tolerance, instead of the measured one.",
        ),
    ):
        command = option(command)
    return command


def device_option(command: F) -> F:
    """The processors on which artefacts run besides this machine's own."""
    return click.option(
        "--device",
        "devices",
        multiple=True,
        metavar="DEVICE",
        help="Run every artefact on this processor as well: arm64, arm64:cortex-a53, "
        "arm64:cortex-a76, arm64:max or all; see 'doctor --install arm64'.",
    )(command)


def constant_option(command: F) -> F:
    """Whether a module may be constant."""
    return click.option(
        "--accept-constant",
        is_flag=True,
        help="Pass a module whose outputs are the same on every probe.",
    )(command)


def source_options(command: F) -> F:
    """The options that say how to load and call a module."""
    for option in (
        click.option(
            "--drop-output",
            "drop_outputs",
            multiple=True,
            metavar="NAME",
            help="Go without this output of the module, or all that NAME holds.",
        ),
        click.option(
            "--trust",
            is_flag=True,
            help="Load a .pt2 file also where it holds code, which is then run.",
        ),
        click.option(
            "--download",
            is_flag=True,
            help="Fetch the weights of a timm: or hf: model that are not on this machine.",
        ),
        click.option(
            "--data",
            multiple=True,
            metavar="FILE.npz",
            type=click.Path(),
            help="Real inputs, one array an input, or a folder of such; the first is the example.",
        ),
        click.option(
            "--values",
            multiple=True,
            metavar="SPEC",
            help="Values an input can take, e.g. 'ids=0..30521' or 'mask=padding'.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="SPEC",
            help="An input, e.g. 'image:float32[N=1..8,3,H=64..512,W]'.",
        ),
        click.option(
            "--weights",
            metavar="FILE",
            type=click.Path(),
            help="A .safetensors file, or a state dict as .pt or .pth.",
        ),
    ):
        command = option(command)
    return command


def report_option(command: F) -> F:
    """Where the report is saved: refused before any work where it cannot be."""

    def writable(_ctx: Any, _param: Any, path: str | None) -> str | None:
        if path is not None:
            from torch2mobile.exporter.output import refuse_output

            refuse_output(Path(path))
        return path

    return click.option(
        "--report",
        type=click.Path(),
        callback=writable,
        help="Write the report's JSON here, passed or not.",
    )(command)


def parse_tolerances(atol: Sequence[str], rtol: Sequence[str]) -> dict[str, Tolerance]:
    """Tolerances by output name ("" for all) from ``A`` and ``OUTPUT=A``."""
    from torch2mobile.records import Tolerance

    found: dict[str, dict[str, float]] = {}
    for kind, texts in (("atol", atol), ("rtol", rtol)):
        for text in texts:
            name, _, number = text.rpartition("=")
            value = limits.read_number(kind, number, of=name)
            found.setdefault(name, {})[kind] = value
    return {name: Tolerance(**values) for name, values in found.items()}


def make_parity(options: dict[str, Any]) -> ParityOptions:
    """The parity options of a command's parameters."""
    from torch2mobile.records import ParityOptions

    return ParityOptions(
        probes=options["probes"],
        seed=options["seed"],
        tolerances=parse_tolerances(options["atol"], options["rtol"]),
        timeout=options["timeout"],
        accept_constant=options.get("accept_constant", False),
    )


def observer_of(options: dict[str, Any]) -> ProgressObserver:
    """The observer for a command's -v and -q."""
    observer = ProgressObserver(-1 if options["quiet"] else int(options["verbose"]))
    _observers.append(observer)
    return observer


def finish(report: Report, options: dict[str, Any]) -> int:
    """Print the report, save it where asked, and return the exit code it means."""
    from torch2mobile.reporters import REPORTERS

    clear_progress()
    colour = use_colour(sys.stdout)
    text = REPORTERS[options["form"]](report, colour=colour, verbose=options["verbose"])
    try:
        click.echo(text, nl=False, color=colour)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`), which changes no verdict.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if options.get("report"):
        save_report(report, Path(options["report"]))
    return int(report.exit_code)


def save_report(report: Report, path: Path) -> None:
    """Write the report's JSON to a file."""
    from torch2mobile.exporter.output import write_output
    from torch2mobile.reporters import REPORTERS

    write_output(path, REPORTERS["json"](report).encode())


def echo_table(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as JSON, or as aligned columns."""
    if form == "json":
        click.echo(json.dumps(list(rows), indent=2))
        return
    columns = list(rows[0]) if rows else []
    cells = [[_one_line(str(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def complain(error: Torch2MobileError) -> None:
    """An error on stderr: what was wrong, and what to do."""
    clear_progress()
    label = click.style("error:", fg="red", bold=True)
    colour = use_colour(sys.stderr)
    click.echo(f"{label} {_printable(error.message)}", err=True, color=colour)
    for place in error.locations:
        click.echo(f"  {_one_line(f'at {place}')}", err=True, color=colour)
    if error.remedy:
        click.echo(f"  {_printable(error.remedy)}", err=True, color=colour)


def bug(error: BaseException) -> int:
    """What is neither the user's nor the model's fault."""
    clear_progress()
    text = _printable(f"{type(error).__name__}: {error}")
    click.echo(f"error: this is a bug in torch2mobile: {text}", err=True)
    click.echo("  Run it again with --debug and report what it prints.", err=True)
    return int(ExitCode.BUG)
