"""Checks objects against the schemas of Kubernetes, and of the custom resources that are used."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import kubernetes_validate

from deploy_check.objects import Finding, Object, where

KUBERNETES_VERSION = "1.37.0"
_CUSTOM = Path(__file__).parent / "custom_resources.json"


def check_schemas(objects: list[Object]) -> list[Finding]:
    """Fields that an API server would refuse.

    The schemas of custom resources have only the fields that the manifests use, so that a misspelt
    field is found.
    """
    custom = json.loads(_CUSTOM.read_text())
    findings = []
    for item in objects:
        kind = f"{item['apiVersion']}/{item['kind']}"
        try:
            if kind in custom:
                jsonschema.validate(item, {**custom[kind], "$defs": custom["$defs"]})
            else:
                kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
        except jsonschema.ValidationError as error:
            path = ".".join(str(p) for p in error.absolute_path)
            findings.append(Finding(where(item), f"schema: {path}: {error.message[:200]}"))
        except kubernetes_validate.SchemaNotFoundError:
            findings.append(Finding(where(item), f"no schema for {kind}"))
    return findings
