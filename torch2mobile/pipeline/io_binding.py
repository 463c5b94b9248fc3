"""A module under the interface of an artefact: the same inputs and outputs, by name or position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import InputError, LostOutputError, UsageError
from torch2mobile.exporter.loading.inputs import check_against_example
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import Runner
from torch2mobile.pipeline.bound_runner import BoundRunner
from torch2mobile.pipeline.stages import error_check
from torch2mobile.records import (
    ArtifactEntry,
    Bundle,
    Check,
    LoadedModel,
    Match,
    OutputSpec,
    Request,
    Status,
    Variant,
)

if TYPE_CHECKING:
    import numpy as np

Loader = Callable[[Request], LoadedModel]


def load_source(request: Request) -> LoadedModel:
    """The model that a request names."""
    from torch2mobile.exporter.loading import source
    from torch2mobile.sample_models import SAMPLES

    return source.load(request, SAMPLES)


def loaded_for(request: Request, load: Loader | None) -> LoadedModel:
    """The model of a request, with an example that it takes where that was drawn."""
    from torch2mobile.validators.parity import domain

    return domain.taken((load or load_source)(request))


def as_exported(request: Request, bundle: Bundle) -> Request:
    """The request with the inputs, values, weights and artefacts' tolerances of the bundle."""
    given = bundle.manifest.request
    if given is None:
        return request
    known = request.parity.tolerances
    named = {name.rpartition("@")[2] for name in known if "@" in name}
    # What an artefact may be off was said when it was exported; other outputs are measured.
    recorded = {
        name: limit
        for name, limit in given.parity.tolerances.items()
        if "@" in name and name.rpartition("@")[2] not in named
    }
    request = replace(
        request,
        weights=request.weights or given.weights,
        drop_outputs=request.drop_outputs or given.drop_outputs,
        state=request.state or given.state,
        stop_before=request.stop_before or given.stop_before,
        output_of=request.output_of or given.output_of,
        parity=replace(
            request.parity,
            tolerances={**recorded, **known},
            accept_constant=request.parity.accept_constant or given.parity.accept_constant,
        ),
    )
    if request.inputs:
        return request
    return replace(
        request,
        inputs=given.inputs,
        values=request.values or given.values,
        data=request.data or given.data,
        preprocess=request.preprocess or given.preprocess,
        tokenizer=request.tokenizer or given.tokenizer,
    )


def with_manifest_inputs(loaded: LoadedModel, bundle: Bundle) -> LoadedModel:
    """The source's model under the bundle's input specifications, which were captured."""
    names = [spec.name for spec in bundle.manifest.inputs]
    if [spec.name for spec in loaded.specs] != names:
        raise UsageError(
            f"the source takes {[s.name for s in loaded.specs]}, the bundle {names}",
            "Name the source that this bundle was exported from, with the same --input.",
        )
    specs = tuple(
        replace(own, values=given.values or own.values)
        for own, given in zip(bundle.manifest.inputs, loaded.specs, strict=True)
    )
    shapes = {
        spec.name: (spec.dtype, tuple(tensor.shape))
        for spec, tensor in zip(loaded.specs, loaded.tensors, strict=True)
    }
    check_against_example(specs, shapes)
    return replace(loaded, specs=specs)


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


def lost_outputs(loaded: LoadedModel) -> Check | None:
    """A failed check where the module returns more than a file can, and nobody said to drop it."""
    from torch2mobile.exporter.example_call import check_example

    try:
        check_example(loaded)
    except LostOutputError as error:
        return error_check("contract", error)
    except InputError:
        # What the module makes of its example is the reference's to say.
        if loaded.flat.dropped:
            raise
    return None


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


def match_outputs(own: Sequence[str], names: Sequence[str], match: Match) -> list[str]:
    """The names under which the module's outputs are compared: its own if the file has all of them.

    Else the file's, by position, wherever there are as many.
    """
    kept = len(own) != len(names) or (match == "name" and set(own) == set(names))
    return list(own if kept else names)


@dataclass(frozen=True)
class Matched:
    """The module under a file's interface: what to feed, the outputs' names, the lost inputs.

    ``renamed`` has those names of the module's that the file has otherwise, with the file's.
    """

    loaded: LoadedModel
    runner: Runner
    outputs: Sequence[str]
    lost: Sequence[str] = ()
    renamed: Sequence[tuple[str, str]] = ()


def match_file(
    loaded: LoadedModel, runner: Runner, path: Path, variant: Variant, match: Match = "name"
) -> Matched:
    """A file of any origin beside the module: by name, and what is named otherwise by position.

    ``runner`` is then given only the inputs that the file has. Raises UsageError where the inputs
    cannot be matched.
    """
    from torch2mobile.exporter.example_call import check_example

    named = check_example(loaded)[0]
    if variant != ONNX:
        wanted = [OutputSpec(name, "", ()) for name in named]
        runner = BoundRunner(runner, ArtifactEntry(variant), loaded.specs, wanted)
    inputs = [spec.name for spec in runner.inputs()]
    own = [*(spec.name for spec in loaded.specs), *named]
    lost = lost_inputs(loaded, inputs)
    if not lost:
        loaded = match_inputs(loaded, inputs, path)
    outputs = match_outputs(named, [spec.name for spec in runner.outputs()], match)
    found = [*(spec.name for spec in loaded.specs), *outputs]
    renamed = [(one, other) for one, other in zip(own, found, strict=True) if one != other]
    return Matched(loaded, Fed(runner, inputs) if lost else runner, outputs, lost, renamed)


def names_check(target: str, matched: Matched, match: Match) -> Check | None:
    """Whether the file's names are the module's, where they are not: the app goes by them."""
    if matched.lost:
        return lost_check(target, matched.lost)
    if not matched.renamed:
        return None
    pairs = ", ".join(f"{own} as {other}" for own, other in matched.renamed)
    if match == "position":
        return Check("contract", Status.PASSED, f"matched by position: {pairs}", target=target)
    return Check(
        "contract",
        Status.FAILED,
        f"the file has other names than the module: {pairs}",
        target=target,
        hint="An app goes by the names. For a file from elsewhere, say --match position (from "
        "Python match='position').",
    )
