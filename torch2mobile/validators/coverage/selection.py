"""Which findings count: selected and ignored codes, and suppressions with a reason."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from os.path import commonpath

from torch2mobile.errors import UsageError
from torch2mobile.records import Finding, Severity
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.rules.rule import Rule

_CODE = re.compile(r"T2M[0-9]")
_ORDER = (Severity.INFO, Severity.WARNING, Severity.ERROR)


@dataclass(frozen=True)
class Suppression:
    """Findings of ``code`` in files that match ``path`` do not count, for this ``reason``.

    ``path`` is a glob such as ``net.py`` or ``models/*``; it also matches a file's last parts.
    """

    code: str
    reason: str
    path: str = "*"

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        file = finding.location.file.replace("\\", "/")
        matches = fnmatch(file, self.path) or fnmatch(file, f"*/{self.path}")
        return finding.code == self.code and matches


@dataclass(frozen=True)
class Selection:
    """Codes or prefixes of codes to report and to leave out; by default all are reported.

    The longer of two that match decides, so that ``select=("T2M108",), ignore=("T2M1",)``
    reports T2M108. Between equals, ignoring wins.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    suppress: tuple[Suppression, ...] = ()

    def __post_init__(self) -> None:
        for name in ("select", "ignore"):
            upper = tuple(prefix.upper() for prefix in getattr(self, name))
            object.__setattr__(self, name, upper)
        for prefix in (*self.select, *self.ignore):
            if not prefix or not any(code.startswith(prefix) for code in RULES):
                raise _unknown(prefix, "no rule's code is or begins with")
        for suppression in self.suppress:
            if not isinstance(suppression, Suppression):
                raise UsageError(
                    f"a {type(suppression).__name__} was given where a Suppression is needed",
                    "Write Suppression(code, reason, path).",
                )
            if not suppression.reason.strip():
                raise UsageError(
                    f"the suppression of {suppression.code} gives no reason",
                    'Write why it does not matter here: reason = "...".',
                )
        # A rule may be meant by its name too.
        known = tuple(replace(s, code=find_rule(s.code).code) for s in self.suppress)
        object.__setattr__(self, "suppress", known)

    def selects(self, code: str) -> bool:
        """Whether findings of this code are reported."""
        wanted = max((len(p) for p in self.select if code.startswith(p)), default=-1)
        unwanted = max((len(p) for p in self.ignore if code.startswith(p)), default=-1)
        if self.select and wanted < 0:
            return False
        return unwanted < 0 or wanted > unwanted

    def apply(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """The selected findings, once each, in order of place; suppressed ones have a reason."""
        kept = {self._marked(f): None for f in findings if self.selects(f.code)}
        return tuple(sorted(kept, key=_place))

    def _marked(self, finding: Finding) -> Finding:
        for suppression in self.suppress:
            if suppression.covers(finding):
                return replace(finding, suppressed=suppression.reason)
        return finding

    def unused(self, findings: Sequence[Finding]) -> tuple[Suppression, ...]:
        """The suppressions that suppressed none of these."""
        return tuple(s for s in self.suppress if not any(s.covers(f) for f in findings))


def _place(finding: Finding) -> tuple[str, int, str, str, str]:
    where = finding.location
    return where.file, where.line, where.module, finding.code, where.node


def counts(finding: Finding, fail_on: Severity) -> bool:
    """Whether a finding makes the check fail."""
    serious = _ORDER.index(finding.severity) >= _ORDER.index(fail_on)
    return serious and not finding.suppressed


def find_rule(code: str) -> Rule:
    """The rule of this code or name; UsageError, with the nearest one, for an unknown code."""
    by_name = {rule.name: rule for rule in RULES.values()}
    rule = RULES.get(code.upper()) or by_name.get(code.lower())
    if rule is None:
        raise _unknown(code, "there is no rule")
    return rule


def _unknown(code: str, problem: str) -> UsageError:
    close = difflib.get_close_matches(code.upper(), RULES, n=9, cutoff=0.5)
    if _CODE.match(code.upper()):
        # The hundreds are kinds of rules: a code of another one is not meant.
        close = [known for known in close if known[:4] == code.upper()[:4]]
    # Of codes that are equally close, those that begin alike are likelier meant.
    close = sorted(close, key=lambda c: len(commonpath([c, code.upper()])))[:-4:-1]
    names = [rule.name for rule in RULES.values()]
    close = close or difflib.get_close_matches(code.lower(), names, n=3)
    return UsageError(
        f"{problem} {code!r}",
        f"Did you mean {' or '.join(close)}?" if close else "'torch2mobile rules' lists them.",
    )
