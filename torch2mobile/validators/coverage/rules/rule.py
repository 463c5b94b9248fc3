"""What a rule is: the text that users read, and the example that a test executes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch2mobile.records import Finding, Location, RuleInfo, Severity

LevelName = Literal["source", "aten", "runtime", "accelerator", "target"]

HERE = "# here"
"""Ends the line of an example that the finding must name."""


@dataclass(frozen=True)
class Rule(RuleInfo):
    """A rule of ``check``, with an example of what it finds and of what to write instead.

    ``before`` and ``after`` are the texts of Python files with a class ``Net``; ``inputs`` and
    ``values`` describe the inputs of both, ``also`` are codes that ``before`` cannot do without.
    Where a module cannot show the rule, they are empty and ``no_example`` says why. ``target`` is
    the --target or --provider that shows it. ``rewrite`` says what ``export --rewrite`` does.
    """

    level: LevelName = "source"
    before: str = ""
    after: str = ""
    inputs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    no_example: str = ""
    target: str = ""
    rewrite: str = ""

    def found(
        self,
        location: Location,
        message: str = "",
        *,
        severity: Severity | None = None,
        remedy: str = "",
        target: str = "",
    ) -> Finding:
        """A finding of this rule; what is not given is the rule's own."""
        return Finding(
            code=self.code,
            severity=severity or self.severity,
            message=message or self.summary,
            location=location,
            remedy=remedy or self.remedy,
            target=target,
        )

    @property
    def info(self) -> RuleInfo:
        """The part that goes into a report."""
        return RuleInfo(self.code, self.name, self.severity, self.summary, self.reason, self.remedy)


def net(body: str) -> str:
    """An example's file: a class ``Net`` with this body, below the imports that it needs."""
    used = [name for name in ("math", "torch") if re.search(rf"\b{name}\.", body)]
    imports = "".join(f"import {name}\n" + "\n" * (name == "math") for name in used)
    return f"\n{imports}from torch import nn\n\n\nclass Net(nn.Module):{body}"
