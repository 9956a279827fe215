"""``cascade schema``: the JSON Schema of policies."""

from __future__ import annotations

import json

from cascade.cli.reply import Reply

__all__ = ["schema"]


def schema() -> Reply:
    """Generate the schema from the policy classes."""
    from cascade.policy.schema import json_schema

    document = json_schema()
    return Reply(json.dumps(document, indent=2), document)
