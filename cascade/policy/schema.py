"""The policy's JSON Schema (draft-07), from the classes that validate it."""

from __future__ import annotations

from typing import Any

import attrs

from cascade.policy.model import Policy
from cascade.policy.settings import kind_settings, known_kinds, spec_class
from cascade.policy.walk import fields_of

__all__ = ["json_schema", "policy_schema"]


def json_schema() -> dict[str, Any]:
    """Return the schema of a policy file.

    >>> json_schema()["additionalProperties"]
    False
    """
    found = _object(Policy)
    found["required"] = sorted({*found["required"], "version"})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cascade policy",
        **found,
    }


policy_schema = json_schema


def _object(cls: Any) -> dict[str, Any]:
    fields = fields_of(cls)
    properties = {
        name: {"description": f.metadata["doc"], **_kind(f.metadata["kind"])}
        for name, f in fields.items()
    }
    required = sorted(name for name, f in fields.items() if f.default is attrs.NOTHING)
    if getattr(cls, "TAGS", ()):
        properties["kind"] = {"const": cls.kind}
        required = ["kind", *required]
    found = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": required,
    }
    shorthand = getattr(cls, "SHORTHAND", None)
    return {"anyOf": [fields[shorthand].metadata["kind"].schema, found]} if shorthand else found


def _kind(kind: Any) -> dict[str, Any]:
    if kind.section is None:
        return dict(kind.schema)
    if kind.section is spec_class:
        return {
            "type": "array",
            "minItems": 1,
            **kind.schema,
            "items": {"anyOf": [_object(kind_settings(kind)) for kind in known_kinds()]},
        }
    return _object(kind.section)
