"""What localising is asked and what it finds: a verdict, and the nodes behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.records import Tolerance
from torch2mobile.validators.parity.channels import Yardstick
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.locating.slices import NodeInfo

if TYPE_CHECKING:
    from torch.export import ExportedProgram

DOES_NOT_RUN = "does not run"


@dataclass(frozen=True)
class Question:
    """What to localise: an .onnx, the program behind it, and the probe on which they differ.

    ``twins`` has the program's node of a value's name; ``fresh`` is the program's translation as
    it should be, where the artefact may be another one, and ``simplify`` simplifies that.
    ``inputs`` are the artefact's, in the program's order; ``usual`` and ``tolerances`` are what the
    gate judged the outputs by.
    """

    artifact: Path
    program: ExportedProgram
    twins: Mapping[str, str]
    inputs: tuple[str, ...]
    case: Expected
    usual: Mapping[str, Yardstick]
    tolerances: Mapping[str, Tolerance]
    fresh: Path | None = None
    simplify: Callable[[], Path | None] | None = None
    timeout: float = 300.0


@dataclass(frozen=True)
class Suspect:
    """A node, or the nodes between two known values, and the error of the value that they give.

    ``before`` is the error that the inputs bring along in the artefact, ``after`` that of the
    value there; None where they could not be had. ``fault`` is ``kernel`` where ONNX Runtime
    computes the node otherwise than ONNX defines it, ``graph`` where the node is another function
    than the module's, and empty where that is not known. ``differences`` are to the translation.
    """

    nodes: tuple[NodeInfo, ...]
    value: str
    error: float
    allowed: float
    floor: float | None
    problem: str
    before: float | None = None
    after: float | None = None
    fault: str = ""
    differences: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it gives anything at all."""
        return not self.problem.startswith(DOES_NOT_RUN)


@dataclass(frozen=True)
class Located:
    """Where it starts.

    ``verdict`` is ``node``; ``interface`` where the outputs are others than the module's;
    ``capture`` where the program itself is another function than the module; ``optimizer`` where
    only ONNX Runtime's graph optimisations make the difference;
    ``accumulated`` where no node is at fault alone, ``unstable`` where no tolerance lets pass what
    that leads to, as a NaN or another index; ``refused`` where the artefact as a whole
    does not run, though each node does; and ``nothing`` where nothing differs on this probe.
    ``compared`` and ``values`` count the values that were lined up, of all in the artefact.
    """

    verdict: str
    probe: str
    suspects: tuple[Suspect, ...] = ()
    detail: str = ""
    compared: int = 0
    values: int = 0
