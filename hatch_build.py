"""Writes the policy's JSON Schema into the wheel, from the classes that validate policies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemaHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Generates ``cascade/policy/policy.schema.json``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Generate the file before the build."""
        root = Path(self.root)
        sys.path.insert(0, str(root))
        from cascade.policy.schema import json_schema

        target = root / "cascade" / "policy" / "policy.schema.json"
        target.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
