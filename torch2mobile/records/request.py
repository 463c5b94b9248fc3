"""What the user asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True)
class Tolerance:
    """A user's own tolerance: ``|artefact - reference| <= atol + rtol * |reference|``."""

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True)
class ParityOptions:
    """How hard to look: number of value probes, seed, tolerances, the longest call in seconds.

    ``accept_constant``: outputs that no probe changes are no fault.
    Tolerances are by output name (``""`` for all), artefact (``"@ncnn-fp16"``), or both
    (``"logits@ncnn-fp16"``); what is said of an artefact comes first.
    """

    probes: int = 8
    seed: int = 0
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    timeout: float = 300.0
    accept_constant: bool = False

    def for_artifact(self, label: str) -> ParityOptions:
        """With the tolerances that hold for one artefact, by output name."""
        common = {name: given for name, given in self.tolerances.items() if "@" not in name}
        own = {
            name.rpartition("@")[0]: given
            for name, given in self.tolerances.items()
            if "@" in name and name.rpartition("@")[2] == label
        }
        return replace(self, tolerances=own if "" in own else {**common, **own})


# The least share of mutants that the gate has to catch, where the user gives none.
MIN_CAUGHT = 0.95

Match = Literal["name", "position"]


@dataclass(frozen=True)
class Scrutiny:
    """What ``verify`` is asked about its own gate.

    ``mutants`` is their number; ``search`` whether to search for inputs (None: with mutants);
    ``min_caught`` the least share of mutants to be caught.
    """

    mutants: int = 0
    search: bool | None = None
    min_caught: float = MIN_CAUGHT

    @property
    def asked(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.mutants or self.search)

    @property
    def searches(self) -> bool:
        """Whether to search for inputs."""
        return bool(self.mutants) if self.search is None else self.search


@dataclass(frozen=True)
class Request:
    """What the user asked ``export`` for; written into the report as it is."""

    source: str
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    preprocess: str = ""
    tokenizer: str = ""
    trust: bool = False
    download: bool = False
    drop_outputs: tuple[str, ...] = ()
    state: bool = False
    stop_before: str = ""
    output_of: str = ""
    opset: int | None = None
    simplify: bool = True
    simplify_timeout: float = 120.0
    external_data: bool = False
    targets: tuple[str, ...] = ("ort",)
    devices: tuple[str, ...] = ()
    strict: bool = False
    rewrites: tuple[str, ...] = ()
    mend: bool = True
    parity: ParityOptions = field(default_factory=ParityOptions)


# The fields that say something about a module, as the command line spells them.
ABOUT_MODULE: Mapping[str, str] = {
    "weights": "--weights",
    "inputs": "--input",
    "values": "--values",
    "data": "--data",
    "preprocess": "--preprocess",
    "tokenizer": "--tokenizer",
    "trust": "--trust",
    "download": "--download",
    "drop_outputs": "--drop-output",
    "state": "--state",
    "stop_before": "--stop-before",
    "output_of": "--output-of",
}
