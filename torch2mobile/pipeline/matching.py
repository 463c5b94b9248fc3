"""A file that need not come from torch2mobile: its inputs and outputs against the module's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import UsageError
from torch2mobile.interfaces import Runner
from torch2mobile.records import Check, LoadedModel, Status

if TYPE_CHECKING:
    import numpy as np


def lost_inputs(loaded: LoadedModel, names: Sequence[str]) -> list[str]:
    """The module's inputs that the file has not, where all that it has are the module's."""
    own = [spec.name for spec in loaded.specs]
    return [name for name in own if name not in names] if set(names) <= set(own) else []


class Fed:
    """A runner that is given those inputs that its file has, and no others."""

    def __init__(self, runner: Runner, names: Sequence[str]) -> None:
        self._runner, self._names = runner, names
        self.inputs, self.outputs = runner.inputs, runner.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the file's order."""
        return self._runner.run({name: feeds[name] for name in self._names})


def lost_check(target: str, lost: Sequence[str]) -> Check:
    """Exporters leave out an input that nothing reads, such as one that only picks a branch."""
    return Check(
        "contract",
        Status.FAILED,
        f"the module takes {', '.join(lost)}, and the file has no such input",
        target=target,
        hint="Nothing in the file reads it: what it was at export is fixed. Compute with the "
        "tensor itself in forward (torch.where, torch.cond), in place of a Python branch or loop.",
    )


def match_inputs(loaded: LoadedModel, names: Sequence[str], path: Path) -> LoadedModel:
    """The model with the names of the file's inputs: its own if the file has them.

    Raises UsageError for another number of inputs.
    """
    own = [spec.name for spec in loaded.specs]
    if len(own) != len(names):
        raise UsageError(
            f"{path.name} takes {len(names)} inputs ({', '.join(names)}), the module {len(own)} "
            f"({', '.join(own)})",
            "Describe the module's inputs as the file has them, with --input.",
        )
    if set(own) == set(names):
        return loaded
    specs = tuple(replace(s, name=name) for s, name in zip(loaded.specs, names, strict=True))
    renames = dict(zip(own, names, strict=True))
    data = tuple({renames.get(k, k): v for k, v in case.items()} for case in loaded.data)
    return replace(loaded, specs=specs, data=data)


def match_outputs(loaded: LoadedModel, names: Sequence[str]) -> list[str]:
    """The names under which the module's outputs are compared: its own if the file has them."""
    from torch2mobile.exporter.capture import check_example

    own = list(check_example(loaded)[0])
    return own if set(own) & set(names) or len(own) != len(names) else list(names)
