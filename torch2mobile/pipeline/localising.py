"""A failed parity check told where it starts: node, operator, module path and source line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import Torch2MobileError, UsageError
from torch2mobile.isolation import Worker
from torch2mobile.records import (
    Capture,
    Check,
    LoadedModel,
    Location,
    Mismatch,
    Origin,
    ParityOptions,
    Status,
    Table,
)

if TYPE_CHECKING:
    from torch2mobile.exporter.translate import Translation
    from torch2mobile.interfaces import Observer
    from torch2mobile.validators.parity.findings import Finding, Suspect
    from torch2mobile.validators.parity.gate import Expected
    from torch2mobile.validators.parity.pieces import Process

Origins = Mapping[str, tuple[Origin, ...]]

_COLUMNS = (
    "node",
    "op",
    "value",
    "own error",
    "allowed",
    "floor",
    "before",
    "after",
    "after / floor",
    "at fault",
)
# So many nodes of a span are named with their lines; the table has all.
_PLACES = 6
_SIMPLIFY_SECONDS = 120.0


@dataclass(frozen=True)
class Basis:
    """The captured module and its translation, and the origins of the artefact's values.

    ``fresh`` where the artefact may say something else than the translation; ``simplify`` then
    gives it as onnxsim would leave it, or None.
    """

    capture: Capture
    translation: Translation
    origins: Origins
    fresh: bool = False
    simplify: Callable[[], Path | None] | None = None


class Localiser:
    """Explains the failed parity checks of one run; ``path`` is the .onnx that they are about.

    ``basis`` captures and translates the module, or has done so already; it is asked once, and
    only when something failed.
    """

    def __init__(
        self, path: Path, basis: Callable[[], Basis], options: ParityOptions, observer: Observer
    ) -> None:
        self._path, self._basis, self._options = path, basis, options
        self._observer = observer
        self._made: Basis | None = None
        self._passed: bool | None = None

    def explain(self, check: Check, expected: Sequence[Expected]) -> Check:
        """The check with where it starts, if it failed; a search that fails is a note."""
        if check.target == "onnx":
            self._passed = check.status is Status.PASSED
        if check.status is not Status.FAILED:
            return check
        if check.target != "onnx":
            return replace(check, notes=(*check.notes, self._conversion(check.target)))
        self._observer.started(f"localise {check.target}")
        try:
            case = choose(expected, check.mismatches)
            found = self.find(expected, case)
        except Torch2MobileError as error:
            note = f"where it starts could not be found: {error.message}"
            return replace(check, notes=(*check.notes, note))
        except Exception as error:  # noqa: BLE001 (a search for a cause must not end the run)
            note = f"where it starts could not be found: {type(error).__name__}: {error}"
            return replace(check, notes=(*check.notes, note[:400]))
        return join(check, found)

    def find(self, expected: Sequence[Expected], case: Expected) -> Check:
        """Localise on one probe: a check of its own.

        Raises a Torch2MobileError where the module cannot be captured or the file not be read.
        """
        from torch2mobile.validators.parity.pieces import Process

        # Its imports go on while the module is captured here.
        with Process(self._options.timeout) as process:
            return self._find(expected, case, process)

    def _find(self, expected: Sequence[Expected], case: Expected, process: Process) -> Check:
        from torch2mobile.pipeline.judging import departures
        from torch2mobile.validators.parity import gate
        from torch2mobile.validators.parity.localise import Question, localise

        basis = self._made = self._made or self._basis()
        program = basis.translation.program
        if program is None:
            raise UsageError(
                "the module was captured by a TorchScript trace, whose values have no names",
                "Rewrite what torch.export refuses (see the attempts).",
            )
        question = Question(
            artifact=self._path,
            program=program,
            twins=basis.translation.twins,
            inputs=tuple(spec.name for spec in basis.capture.inputs),
            case=case,
            usual=gate.typical_of(expected),
            tolerances=self._options.tolerances,
            fresh=basis.translation.model.path if basis.fresh else None,
            simplify=basis.simplify,
            timeout=self._options.timeout,
        )
        finding = localise(question, process)
        check = localise_check(finding, basis.origins)
        if finding.verdict == "capture":
            check = replace(check, locations=departures(basis.capture, case.probe.feeds))
        return check

    def _conversion(self, target: str) -> str:
        if self._passed:
            return f"model.onnx passes on these probes: it starts in the conversion to {target}"
        if self._passed is None:
            return "to find where it starts, debug the .onnx that this file was made from"
        return "model.onnx fails as well: see there where it starts"


@contextmanager
def localiser(
    loaded: LoadedModel,
    path: Path,
    opset: int | None,
    options: ParityOptions,
    observer: Observer,
) -> Iterator[Localiser]:
    """For an .onnx that is there: captures and translates the module once it is needed."""
    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
        target = Path(folder) / "model.onnx"
        yield Localiser(path, lambda: _translated(loaded, path, target, opset), options, observer)


def _translated(loaded: LoadedModel, artifact: Path, path: Path, opset: int | None) -> Basis:
    import onnx

    from torch2mobile.exporter import provenance
    from torch2mobile.exporter.capture import capture
    from torch2mobile.exporter.translate import translation

    captured = capture(loaded)
    found = translation(captured, path, opset=opset)
    before, after = (onnx.load(each, load_external_data=False) for each in (path, artifact))
    origins = provenance.carry(before, after, found.model.origins)
    simplify = partial(_simplified, path)
    return Basis(captured, found, origins, fresh=True, simplify=simplify)


def _simplified(path: Path) -> Path | None:
    """The translation as onnxsim leaves it, so that the values it makes have a twin as well."""
    target = path.with_name("simplified.onnx")
    function = "torch2mobile.exporter.simplify:run_onnxsim"
    try:
        with Worker() as worker:
            worker.call(function, str(path), str(target), False, timeout=_SIMPLIFY_SECONDS)
    except Torch2MobileError:
        return None
    return target


def choose(
    expected: Sequence[Expected], mismatches: Sequence[Mismatch], label: str = ""
) -> Expected:
    """The probe to localise on: the named one, else the smallest that fails, else the example.

    Of ordinary values where one of those fails. Raises UsageError for a probe that is not there.
    """
    if label:
        for case in expected:
            if case.probe.label == label:
                return case
        labels = ", ".join(repr(case.probe.label) for case in expected)
        raise UsageError(f"there is no probe {label!r}", f"The probes are {labels}.")
    failing = {mismatch.probe for mismatch in mismatches}
    cases = [case for case in expected if case.probe.label in failing] or list(expected[:1])

    def size(case: Expected) -> tuple[bool, int]:
        return case.probe.extreme, sum(array.size for array in case.probe.feeds.values())

    return min(cases, key=size)


# --- in words ---------------------------------------------------------------------------------


def join(check: Check, found: Check) -> Check:
    """A failed check with what was found: the first suspect's lines, a table, what it means."""
    return replace(
        check,
        locations=(*check.locations, *found.locations),
        tables=(*check.tables, *found.tables),
        notes=(*check.notes, found.summary, *found.notes),
        hint=found.hint or check.hint,
    )


def localise_check(finding: Finding, origins: Origins) -> Check:
    """The finding as a check of its own; PASSED where nothing differs."""
    named = finding.suspects if finding.verdict in {"node", "capture", "accumulated"} else ()
    blamed = named[:1] if finding.verdict == "node" else ()
    return Check(
        "localise",
        Status.PASSED if finding.verdict == "nothing" else Status.FAILED,
        sentence(finding),
        target="onnx",
        hint=_HINTS.get(_cause(finding), ""),
        metrics={"values": finding.values, "compared": finding.compared},
        locations=tuple(place for suspect in blamed for place in _places(suspect, origins)),
        tables=(_table(finding, named),) if named else (),
        notes=tuple(_lined_up(finding)),
    )


def _places(suspect: Suspect, origins: Origins) -> list[Location]:
    from torch2mobile.exporter import provenance

    found: dict[Location, None] = {}
    for node in reversed(suspect.nodes):
        of_node = provenance.merge([origins.get(name, ()) for name in node.outputs])
        found.update(dict.fromkeys(provenance.locations(of_node or (_NOWHERE,), node)))
    return list(found)[:_PLACES]


_NOWHERE = Origin((), "", 0, "")


def _table(finding: Finding, suspects: Sequence[Suspect]) -> Table:
    title = f"where it starts, on probe {finding.probe}"
    if finding.verdict == "accumulated":
        title = f"the largest errors of nodes on their own, on probe {finding.probe}"
    return Table(title, _COLUMNS, tuple(_row(suspect) for suspect in suspects))


def _row(suspect: Suspect) -> tuple[str | float | None, ...]:
    after, floor = suspect.after, suspect.floor
    return (
        ", ".join(node.name or node.op_type for node in suspect.nodes),
        ", ".join(node.op_type for node in suspect.nodes),
        suspect.value,
        suspect.error,
        suspect.allowed,
        floor or None,
        suspect.before,
        after,
        after / floor if after is not None and floor else None,
        {"kernel": "kernel", "graph": "graph"}.get(suspect.fault, "-"),
    )


def _cause(finding: Finding) -> str:
    fault = finding.suspects[0].fault if finding.suspects else ""
    return f"node {fault}".strip() if finding.verdict == "node" else finding.verdict


_HINTS = {
    "node": "Look at the node and the source line named above.",
    "node graph": "The file says something else than the module at this node: export it again, "
    "or look at what changed it. If it is fresh from export, the operator's translation is at "
    "fault: write the line in other operators.",
    "node kernel": "ONNX Runtime computes this node otherwise than ONNX defines it: try another "
    "version of it, or write the line in other operators.",
    "optimizer": "An optimisation of ONNX Runtime's changes the result: try another version, or "
    "set graph_optimization_level lower in the app.",
    "capture": "torch.export fixed what depends on the call: look for Python that depends on "
    "sizes, values, earlier calls, or on being exported.",
    "accumulated": "Each node is as exact as it can be. Give your own tolerance if this error is "
    "acceptable, or make the module less sensitive to rounding.",
}


def sentence(finding: Finding) -> str:
    """The finding in one sentence."""
    if finding.verdict != "node":
        return _OTHERS[finding.verdict].format(probe=finding.probe, detail=finding.detail)
    suspect = finding.suspects[0]
    last = suspect.nodes[-1]
    what = f"the {last.op_type} node {last.name}".strip()
    if len(suspect.nodes) > 1:
        what = f"the {len(suspect.nodes)} nodes up to {suspect.value} (their names were lost)"
    return f"it starts in {what}: {_symptom(suspect)}{_fault(suspect)}"


def _symptom(suspect: Suspect) -> str:
    from torch2mobile.validators.parity.findings import DOES_NOT_RUN

    if not suspect.runs:
        return f"given the module's own values it {suspect.problem[:300]}"
    text = f"given the module's own values, {suspect.value} {suspect.problem or DOES_NOT_RUN}"
    if suspect.before is not None and suspect.after is not None:
        text += f"; in the file, the error is {suspect.before:.3g} before it"
        text += f" and {suspect.after:.3g} after it"
    return text


def _fault(suspect: Suspect) -> str:
    if suspect.differences:
        return f"; it has {'; '.join(suspect.differences)}"
    if suspect.fault == "kernel":
        return "; onnx's reference implementation agrees with the module, not with ONNX Runtime"
    if suspect.fault == "graph":
        return "; onnx's reference implementation agrees with ONNX Runtime, not with the module"
    return ""


_OTHERS = {
    "capture": "it starts in the capture: on probe {probe} the captured program itself gives "
    "something else than the module ({detail})",
    "optimizer": "it starts in ONNX Runtime's graph optimisations: on probe {probe} every node is "
    "right on its own, and so is the file without them ({detail})",
    "accumulated": "it starts nowhere: on probe {probe} every node is within its own limit, and "
    "their rounding adds up ({detail})",
    "refused": "every node runs on its own on probe {probe}, but not the file: {detail}",
    "interface": "it starts in the file's interface: {detail}",
    "nothing": "on probe {probe} every node is within its own limit, and so is the whole",
}


def _lined_up(finding: Finding) -> list[str]:
    """How much of the file could be lined up, where that bears on the finding."""
    if finding.compared == finding.values or finding.verdict in {"node", "interface", "capture"}:
        return []
    counts = f"{finding.compared} of the file's {finding.values} values are also the module's"
    return [f"{counts}; what lies between them was judged as one"]
