"""A rule as a page: for ``explain`` and for the documentation, from the same text."""

from __future__ import annotations

import json
from dataclasses import fields

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.accelerators import ACCELERATORS
from torch2mobile.validators.coverage.rules.rule import Rule


def page(rule: Rule) -> str:
    """The Markdown of a rule, with a newline at the end."""
    parts = [
        f"# {rule.code}: {rule.name}",
        f"Severity {rule.severity.value}. Found: {rule.summary}.",
        "## Why",
        rule.reason,
        "## What to do",
        rule.remedy,
    ]
    if rule.rewrite:
        parts.append(
            f"`torch2mobile export --rewrite {rule.code}` does it in what is exported: "
            f"{rule.rewrite}."
        )
    if rule.before:
        parts += ["## Example", "Found:", _block(rule.before)]
    if rule.after:
        parts += ["Instead:", _block(rule.after)]
    if rule.inputs:
        words = [f"--input '{text}'" for text in rule.inputs]
        words += [f"--values '{text}'" for text in rule.values]
        flag = "--provider" if rule.target in ACCELERATORS else "--target"
        words += [f"{flag} {rule.target}"] if rule.target else []
        parts.append(f"Both with `{' '.join(words)}`.")
    if rule.no_example:
        parts += ["## Example", rule.no_example]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```python\n{text.strip()}\n```"


def render(rule: Rule, form: str) -> str:
    """The page as ``text``, or all fields as ``json``."""
    if form != "json":
        return page(rule)
    values = {field.name: getattr(rule, field.name) for field in fields(rule)}
    plain = {k: v.value if isinstance(v, Severity) else v for k, v in values.items()}
    return json.dumps(plain, indent=2) + "\n"
