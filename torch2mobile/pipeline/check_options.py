"""What check looks at and what counts; refused where it does not fit what is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch2mobile import limits
from torch2mobile.errors import UsageError, did_you_mean
from torch2mobile.pipeline.conversion import find_variants
from torch2mobile.records import ABOUT_MODULE, InputSpec, Request, Severity
from torch2mobile.validators.coverage import releases
from torch2mobile.validators.coverage.accelerators import ACCELERATORS
from torch2mobile.validators.coverage.graph import no_such_symbol
from torch2mobile.validators.coverage.selection import Selection


@dataclass(frozen=True)
class CheckOptions:
    """What to look at and what counts; see :class:`Selection`."""

    targets: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    fail_on: Severity = Severity.ERROR
    ort_version: str | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    mend: bool = True

    @property
    def wants_model(self) -> bool:
        """Whether the ONNX that a module becomes is looked at."""
        return bool(self.targets or self.providers or self.ort_version or self.opset)

    def __post_init__(self) -> None:
        converted = [one for one in find_variants(self.targets) if one.target != "ort"]
        for name in self.providers:
            if name not in ACCELERATORS:
                raise UsageError(
                    f"check knows no provider {name!r}", did_you_mean(name, list(ACCELERATORS))
                )
        if self.ort_version is not None:
            releases.check_version(self.ort_version)
        if not converted:
            refuse_no_provider(self)
        for name, size in self.fixed.items():
            limits.check_number("fix_dim", size, of=name)
        if self.opset is not None:
            limits.check_number("opset", self.opset)


def severity_of(text: str) -> Severity:
    """The severity of this name; UsageError for any other."""
    if text not in tuple(Severity):
        raise UsageError(
            f"fail_on is {text!r}, which is no severity",
            f"The severities are {', '.join(s.value for s in Severity)}.",
        )
    return Severity(text)


def refuse_module_options(request: Request, options: CheckOptions) -> None:
    """UsageError for what says something about a module, where a file is looked at."""
    given = [flag for name, flag in ABOUT_MODULE.items() if getattr(request, name)]
    if options.opset is not None:
        given.append("--opset")
    if not options.mend:
        given.append("--no-mend")
    if request.parity.seed:
        given.append("--seed")
    if given:
        raise UsageError(
            f"{given[0]} says something about a module, and {request.source} is a file",
            "Leave it out, or name the module.",
        )


def refuse_no_provider(options: CheckOptions) -> None:
    """UsageError for sizes that no accelerator is asked about."""
    if options.fixed and not options.providers:
        raise UsageError(
            "--fix-dim says something about an accelerator, or about a file for another target, "
            "and none is asked for",
            f"Add --provider {', or '.join(ACCELERATORS)}, or leave it out.",
        )


def refuse_sizes(
    fixed: Mapping[str, int], inputs: Iterable[InputSpec], *, named: bool = True
) -> None:
    """UsageError for a size that these inputs cannot have; ``named``: they name all dimensions."""
    known = {str(dim.label): dim for spec in inputs for dim in spec.dims if dim.symbol is not None}
    for name, size in fixed.items():
        dim = known.get(name)
        if dim is None:
            if named:
                raise no_such_symbol(name, known)
            continue
        least, most = dim.ends
        if size < least or (most is not None and size > most):
            raise UsageError(
                f"--fix-dim {name}={size}: {name} was declared as {least}..{most or ''}",
                "Give a size of that range, or declare another one with --input.",
            )
        found = dim.solved(size, {})
        if found is not None and found[2]:
            raise UsageError(
                f"--fix-dim {name}={size}: no whole {dim.symbol} gives {size}",
                f"Give a size that one does, for example {name}={least}.",
            )
