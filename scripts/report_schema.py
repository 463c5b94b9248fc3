"""Writes the JSON schema of a report, which the package carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from torch2mobile.errors import ExitCode
from torch2mobile.records import SCHEMA_VERSION, Report
from torch2mobile.reporters.codec import NON_FINITE

# A run that ends with another has no report.
EXIT_CODES = (ExitCode.PASSED, ExitCode.FAILED, ExitCode.STAGE)
SCHEMA = Path(__file__).parents[1] / "torch2mobile" / "reporters" / "report.schema.json"


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what ``codec.to_json`` writes."""
    generated = _with_non_finite(msgspec.json.schema(Report))
    definitions = generated["$defs"]
    definitions["Number"] = {
        "description": "A number, or the name of one that JSON cannot write.",
        "anyOf": [{"type": "number"}, {"enum": sorted(NON_FINITE)}],
    }
    report = definitions["Report"]
    report["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    report["properties"]["status"] = {"$ref": "#/$defs/Status"}
    report["properties"]["exit_code"] = {"enum": [code.value for code in EXIT_CODES]}
    report["required"] = [*report["required"], "schema_version"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:torch2mobile:report:{SCHEMA_VERSION}",
        "title": "torch2mobile report",
        **generated,
    }


def schema_json() -> str:
    """The text of the published form of :func:`schema`."""
    return json.dumps(schema(), indent=2) + "\n"


def _with_non_finite(tree: Any) -> Any:
    """Let every number of the schema be a non-finite one as well."""
    if isinstance(tree, dict):
        if tree.get("type") == "number":
            rest = {key: value for key, value in tree.items() if key != "type"}
            return {"$ref": "#/$defs/Number", **rest}
        return {key: _with_non_finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_non_finite(value) for value in tree]
    return tree


if __name__ == "__main__":
    SCHEMA.write_text(schema_json(), encoding="utf-8")
