"""The options that several commands take, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from torch2mobile import limits
from torch2mobile.errors import UsageError

if TYPE_CHECKING:
    from torch2mobile.records import ParityOptions, Request, Tolerance


F = TypeVar("F", bound=Callable[..., Any])


FORMATS = ("text", "json", "html", "sarif", "github")
"""All formats that a report can be drawn in; reporters.REPORTERS has a row for each."""


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


def _flag(name: str, help_text: str) -> Callable[[F], F]:
    return click.option(name, is_flag=True, help=help_text)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in options:
        command = option(command)
    return command


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
                help="More progress on stderr; in the text details of what passed, and seconds.",
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


_PARITY = (
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
)


def parity_options(command: F) -> F:
    """The options of everything that compares numbers."""
    return _with(_PARITY, command)


device_option = click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help="Run every artefact on this processor as well: arm64, arm64:cortex-a53, "
    "arm64:cortex-a76, arm64:max, web, or all (web where it is installed); see 'doctor'.",
)
strict_option = _flag("--strict", "Exit 3 where a target was skipped, as it is not installed.")
constant_option = _flag(
    "--accept-constant", "Pass a module whose outputs are the same on every probe."
)


_SOURCE = (
    click.option(
        "--drop-output",
        "drop_outputs",
        multiple=True,
        metavar="NAME",
        help="Go without this output of the module, or all that NAME holds.",
    ),
    click.option(
        "--output-of",
        default="",
        metavar="PLACE",
        help="End after the call of this submodule or function: its outputs are the file's.",
    ),
    click.option(
        "--stop-before",
        default="",
        metavar="PLACE",
        help="End before the call of this submodule or function: its inputs are the outputs.",
    ),
    _flag(
        "--state", "Make what the module keeps from call to call inputs and outputs of the file."
    ),
    _flag("--trust", "Load a .pt2 file also where it holds code, which is then run."),
    _flag("--download", "Fetch the weights of a timm: or hf: model that are not on this machine."),
    click.option(
        "--tokenizer", default="", metavar="FILE", help="The tokenizer.json for text in --data."
    ),
    click.option(
        "--preprocess",
        default="",
        metavar="STEPS",
        help="How the images in --data become inputs, e.g. 'resize=256,crop=224,mean=0.5,std=0.5'.",
    ),
    click.option(
        "--data",
        multiple=True,
        metavar="PATH",
        type=click.Path(),
        help="Real inputs: an .npz, an image, a folder of these, a .txt; the first is the example.",
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
        help="A .safetensors file, or a state dict as .pt or .pth; FILE:KEY is one of several.",
    ),
)


def source_options(command: F) -> F:
    """The options that say how to load and call a module."""
    return _with(_SOURCE, command)


def request_of(source: str, options: Mapping[str, Any], **more: Any) -> Request:
    """The request that the options of :func:`source_options` make, with what a command adds."""
    from torch2mobile.records import ABOUT_MODULE, Request

    about = {name: options[name] for name in ABOUT_MODULE}
    return Request(source, **about, **more)


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


def fix_dim_option(help_text: str) -> Callable[[F], F]:
    """``--fix-dim``, which :func:`parse_sizes` reads."""
    return click.option(
        "--fix-dim", "fix_dims", multiple=True, metavar="SYMBOL=SIZE", help=help_text
    )


def parse_sizes(texts: Sequence[str]) -> dict[str, int]:
    """Sizes by symbol from ``N=1``."""
    sizes: dict[str, int] = {}
    for text in texts:
        name, equals, size = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--fix-dim {text}: no symbol and size", "Write --fix-dim N=1.")
        number = int(limits.read_number("fix_dim", size, of=name))
        if sizes.get(name, number) != number:
            raise UsageError(f"--fix-dim gives {name} two sizes", "Give each symbol once.")
        sizes[name] = number
    return sizes
