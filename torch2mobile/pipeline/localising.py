"""A failed parity check told where it starts: node, operator, module path and source line."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch2mobile import user_code
from torch2mobile.environments import Worker
from torch2mobile.errors import Torch2MobileError, UsageError
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.onnx_files import outline
from torch2mobile.pipeline import in_layers
from torch2mobile.pipeline.capturing import captured
from torch2mobile.pipeline.finding_words import join, localise_check
from torch2mobile.pipeline.places import departures, distinct
from torch2mobile.records import (
    Capture,
    Check,
    LoadedModel,
    Location,
    Mismatch,
    ParityOptions,
    Request,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.exporter.provenance import Origins
    from torch2mobile.exporter.translate import Translation
    from torch2mobile.interfaces import LayeredRunner, Observer, Runner
    from torch2mobile.isolation import Process
    from torch2mobile.validators.parity.expected import Expected

# For onnxsim on the translation.
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

    def explain(
        self, check: Check, expected: Sequence[Expected], runner: Runner | None = None
    ) -> Check:
        """The check with where it starts, if it failed; a search that fails is a note.

        ``runner`` is the artefact's, for what it shows of its inside where that is no .onnx.
        """
        if check.target == "onnx":
            self._passed = check.status is Status.PASSED
        if check.status is not Status.FAILED:
            return check
        if check.target != "onnx":
            check = replace(check, notes=(*check.notes, self._conversion(check.target)))
            return self.in_layers(check, expected, runner) if runner is not None else check
        self._observer.started(f"localise {check.target}")
        try:
            case = choose(expected, check.mismatches)
            found = self.find(expected, case)
        except Torch2MobileError as error:
            note = f"where it starts could not be found: {error.message}"
            places = tuple(each for each in error.locations if isinstance(each, Location))
            hint = error.remedy if places else check.hint
            return replace(check, hint=hint, notes=(*check.notes, note), locations=places)
        except Exception as error:  # noqa: BLE001 (a search for a cause must not end the run)
            note = f"where it starts could not be found: {type(error).__name__}: {error}"
            return replace(check, notes=(*check.notes, note[:400]))
        return join(check, found)

    def in_layers(self, check: Check, expected: Sequence[Expected], runner: Runner) -> Check:
        """A failed check with the layer of its own runtime at which it starts.

        Only where the .onnx passes, which the layers' values are compared with.
        """
        if check.status is not Status.FAILED or not self._passed:
            return check
        self._observer.started(f"localise {check.target}")
        try:
            case = choose(expected, check.mismatches)
            shown = cast("LayeredRunner", runner)
            found = in_layers.find(shown, self._path, case.probe.feeds, self._options.timeout)
            if isinstance(found, str):
                return replace(check, notes=(*check.notes, found))
            self._made = self._made or self._basis()
        except Exception as error:  # noqa: BLE001 (a search for a cause must not end the run)
            note = f"the layer where it starts could not be found: {error}"
            return replace(check, notes=(*check.notes, note[:400]))
        return in_layers.told(check, found, case.probe.label, self._made.origins)

    def find(self, expected: Sequence[Expected], case: Expected) -> Check:
        """Localise on one probe: a check of its own.

        Raises a Torch2MobileError where the module cannot be captured or the file not be read.
        """
        from torch2mobile.validators.parity.locating.pieces import process_of_pieces

        # Its imports go on while the module is captured here.
        with process_of_pieces(self._options.timeout) as process:
            return self._find(expected, case, process)

    def _find(self, expected: Sequence[Expected], case: Expected, process: Process) -> Check:
        from torch2mobile.exporter import capture_words
        from torch2mobile.validators.parity.expected import typical_of
        from torch2mobile.validators.parity.localise import localise
        from torch2mobile.validators.parity.locating.suspects import Question

        basis = self._made = self._made or self._basis()
        program = basis.translation.program
        if program is None:
            raise UsageError(
                "the module was captured by a TorchScript trace, whose values have no names",
                capture_words.remedy(basis.capture.loaded, basis.capture.attempts),
                _refused_at(basis.capture),
            )
        question = Question(
            artifact=self._path,
            program=program,
            twins=basis.translation.twins,
            inputs=tuple(spec.name for spec in basis.capture.inputs),
            case=case,
            usual=typical_of(expected),
            tolerances=self._options.for_artifact("onnx").tolerances,
            fresh=basis.translation.model.path if basis.fresh else None,
            simplify=basis.simplify,
            timeout=self._options.timeout,
        )
        finding = localise(question, process)
        nodes = {node.name: node for node in program.graph.nodes if node.op == "call_function"}
        operators = {
            value: user_code.called(nodes[name])
            for value, name in basis.translation.twins.items()
            if name in nodes
        }
        check = localise_check(finding, basis.origins, operators)
        if finding.verdict == "capture":
            check = _with_departures(check, basis.capture, case)
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
    asked: Request | None,
    options: ParityOptions,
    observer: Observer,
) -> Iterator[Localiser]:
    """For an .onnx that is there: captures and translates the module once it is needed.

    ``asked`` is the request that the file was exported with, where that is known: it is translated
    in the same way.
    """
    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
        target = Path(folder) / "model.onnx"
        yield Localiser(path, lambda: _translated(loaded, path, target, asked), options, observer)


@contextmanager
def translated(loaded: LoadedModel) -> Iterator[Path]:
    """The module as an .onnx of its own, until the context ends."""
    from torch2mobile.exporter.capture import capture
    from torch2mobile.exporter.translate import translation

    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
        path = Path(folder) / "model.onnx"
        translation(capture(loaded), path)
        yield path


def _translated(loaded: LoadedModel, artifact: Path, path: Path, asked: Request | None) -> Basis:
    from torch2mobile.exporter import provenance
    from torch2mobile.exporter.rewrite import rewrite
    from torch2mobile.exporter.translate import translation

    asked_for = asked if asked is not None else Request(source="")
    made = captured(
        loaded,
        lambda one: translation(one, path, opset=asked_for.opset, mend=asked_for.mend),
        asked_for.rewrites,
    )
    found = made.given()
    if asked is not None and asked.rewrites:
        found = replace(found, model=rewrite(found.model, asked.rewrites)[0])
    before, after = (outline(each) for each in (path, artifact))
    origins = provenance.carry(before, after, found.model.origins)
    simplify = partial(_simplified, path)
    return Basis(made.capture, found, origins, fresh=True, simplify=simplify)


_DRAWS = re.compile(r"\.(?:rand|normal|bernoulli|multinomial|uniform|exponential)")
_DRAWN = (
    "A file draws other numbers than PyTorch, whatever the seed: give them as an input, or keep "
    "those of one seed in a buffer."
)


def _with_departures(check: Check, capture: Capture, case: Expected) -> Check:
    """With the lines that fixed sizes other than this probe's, or where the graph departs."""
    from torch2mobile.exporter import assumptions

    fixed = assumptions.broken(capture, case.probe.feeds)
    if not fixed:
        places = departures(capture, case.probe.feeds)
        drawn = any(_DRAWS.search(place.op) for place in places)
        return replace(check, locations=places, hint=_DRAWN if drawn else check.hint)
    notes = [f"captured for {text} alone" for text in fixed]
    return replace(check, locations=distinct([*fixed.values()]), notes=(*check.notes, *notes))


def _refused_at(capture: Capture) -> tuple[Location, ...]:
    """The lines at which the strategies stopped before the one that worked."""
    return tuple(dict.fromkeys(place for one in capture.attempts for place in one.locations))


def _simplified(path: Path) -> Path | None:
    """The translation simplified, so that the values which that makes have a twin as well."""
    target = path.with_name("simplified.onnx")
    function = "torch2mobile.exporter.simplify:candidate"
    given = (next(iter(CANDIDATES)), str(path), str(target), False)
    try:
        with Worker() as worker:
            same = worker.call(function, *given, timeout=_SIMPLIFY_SECONDS)["same"]
    except Torch2MobileError:
        return None
    return None if same else target


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
        return case.probe.extreme, case.probe.elements

    return min(cases, key=size)
