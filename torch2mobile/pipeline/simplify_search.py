"""The ways to simplify a file, made in processes of their own, and judged smallest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch2mobile.environments import Worker
from torch2mobile.errors import Torch2MobileError
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.onnx_files import own_files
from torch2mobile.records import (
    Check,
    Metric,
    Status,
    Table,
)

PRELOAD = ("onnx", "onnxsim", "onnx_ir")
# What torch.onnx wrote has been through onnxscript's optimizer. The later rounds are for where the
# first way hangs, dies, or changes a result: none of them leads further.
ROUNDS = (
    ("onnxsim, fusions, views",),
    ("onnxsim", "fusions, views", "onnxsim, all its passes", "onnxsim, folding only"),
)


@dataclass(frozen=True)
class Way:
    """One way to simplify a file, as it went: its result with the numbers of nodes, or the error.

    ``same`` where it changed nothing, ``alike`` where it says the same of inputs and outputs.
    """

    name: str
    path: Path
    before: int = 0
    after: int = 0
    same: bool = False
    alike: bool = False
    error: str = ""


class Search:
    """Makes a file smaller by several ways, and finds the smallest result that is equal to it.

    ``rounds`` are names of ways; a round is made only where none of those before gave a result
    that may be used. ``worker`` makes the first; one that died or hung is replaced.
    """

    def __init__(
        self,
        worker: Worker,
        raw: Path,
        folder: Path,
        *,
        rounds: Sequence[Sequence[str]] = ROUNDS,
        external_data: bool = False,
        timeout: float,
    ) -> None:
        self.worker, self.raw, self.folder = worker, raw, folder
        self.rounds, self.external_data, self.timeout = rounds, external_data, timeout
        self.pending: list[str] = []
        self.made: list[Way] = []

    def begin(self) -> None:
        """Send the first round to the worker without waiting for it."""
        self.folder.mkdir(exist_ok=True)
        self._submit(self.rounds[0])

    def collect(self) -> None:
        """Wait for what was sent; the process is not needed while none is made."""
        while self.pending:
            self.made.append(self._result(self.pending.pop(0)))
        self.worker.close()

    def found(self, judge: Callable[[Way], Check]) -> tuple[Check, Way | None]:
        """The smallest result that ``judge`` passes, and the check that says so.

        Without one the check says why, by the way that was tried first.
        """
        verdicts: dict[str, Check] = {}
        for number, names in enumerate(self.rounds):
            if number:
                self._restart(names)
            self.collect()
            ways = [way for way in self.made if way.name in names]
            for way in sorted(ways, key=lambda way: way.after):
                verdicts[way.name] = check = self._verdict(way, verdicts, judge)
                if check.status is Status.PASSED:
                    return self._told(check, way, verdicts), way
                if check.status is Status.ERROR:  # of the probes, not of the way
                    return self._told(check, None, verdicts), None
        first = next(iter(verdicts.values()))
        return self._told(first, None, verdicts), None

    def _verdict(
        self, way: Way, verdicts: Mapping[str, Check], judge: Callable[[Way], Check]
    ) -> Check:
        if way.error:
            return dropped(f"{way.name}: {way.error}")
        counts: dict[str, Metric] = {"nodes_before": way.before, "nodes_after": way.after}
        if way.same:
            text = f"{way.after} nodes, and nothing to simplify"
            return Check("simplify", Status.PASSED, text, metrics=counts)
        if way.after > way.before:
            reason = f"not simpler: {way.before} nodes became {way.after}"
            return dropped(f"{way.name}: {reason}")
        judged = [each for each in self.made if each.name in verdicts and not each.error]
        for each in judged:
            if each.after == way.after and each.path.read_bytes() == way.path.read_bytes():
                return dropped(f"{way.name}: the file of {each.name}")
        return judge(way)

    def _told(self, check: Check, way: Way | None, verdicts: Mapping[str, Check]) -> Check:
        """The check with a row for each way, and a note for each that was dropped."""
        rows = [
            (each.name, None if each.error else each.after, _words(verdicts.get(each.name)))
            for each in self.made
        ]
        rows += [
            (name, None, "not needed")
            for name in dict.fromkeys(name for names in self.rounds for name in names)
            if name not in {each.name for each in self.made}
        ]
        table = Table("ways", ("way", "nodes", "verdict"), tuple(rows), detail=True)
        tried = [each.summary for each in verdicts.values() if each.status is not Status.PASSED]
        notes = tuple(tried if way is not None else tried[1:])
        metrics = {**check.metrics, **({"way": way.name} if way is not None else {})}
        return replace(check, tables=(table,), notes=notes, metrics=metrics)

    def _submit(self, names: Sequence[str]) -> None:
        for name in names:
            self.worker.submit(
                "torch2mobile.exporter.simplify:candidate",
                name,
                str(self.raw),
                str(self._path(name)),
                self.external_data,
            )
        self.pending = [*self.pending, *names]

    def _path(self, name: str) -> Path:
        return self.folder / f"simplified_{list(CANDIDATES).index(name)}.onnx"

    def _result(self, name: str) -> Way:
        path = self._path(name)
        try:
            counts = self.worker.result(self.timeout)
        except Torch2MobileError as error:
            if not self.worker.alive:
                left, self.pending = self.pending, []
                self._restart(left)
            return Way(name, path, error=error.message)
        return Way(name, path, **counts)

    def _restart(self, names: Sequence[str]) -> None:
        """Another process, for what is still to be made."""
        self.worker.close()
        if names:
            self.worker = Worker()
            self._submit(names)


def _words(check: Check | None) -> str:
    if check is None:
        return "not judged: a smaller one passed"
    return "passed" if check.status is Status.PASSED else check.summary.rpartition(": ")[2]


def dropped(reason: str, check: Check | None = None) -> Check:
    """The check of a way that is not taken."""
    return Check(
        "simplify",
        Status.SKIPPED,
        f"dropped: {reason}",
        mismatches=check.mismatches if check else (),
    )


# Of one protobuf message, and so of a model that carries its weights.
PROTOBUF_LIMIT = 2**31


def too_large(path: Path) -> bool:
    """Whether a model's weights lie beside it because protobuf ends at 2 GB."""
    return any(each.stat().st_size > PROTOBUF_LIMIT - 2**24 for each in own_files(path)[1:])
