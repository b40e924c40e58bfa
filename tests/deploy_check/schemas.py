"""Checks objects against the schemas of Kubernetes and of the custom resources in use."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from deploy_check.objects import Finding, Object, where

KUBERNETES_VERSION = "1.37.0"
_CUSTOM = Path(__file__).parent / "custom_resources.json"


def check_schemas(objects: list[Object]) -> list[Finding]:
    """Finds fields that an API server would reject.

    The schemas of custom resources contain only the fields that the manifests use, so misspelt
    fields are found.
    """
    return [finding for item in objects for finding in _check(json.dumps(item, sort_keys=True))]


def is_custom(item: Object) -> bool:
    """Returns whether an object is a custom resource."""
    return f"{item['apiVersion']}/{item['kind']}" in _custom_schemas()


@functools.cache
def _custom_schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(_CUSTOM.read_text())
    return schemas


# Cached, because overlays share most objects and validation is slow.
@functools.cache
def _check(text: str) -> tuple[Finding, ...]:
    item, custom = json.loads(text), _custom_schemas()
    kind = f"{item['apiVersion']}/{item['kind']}"
    try:
        if kind in custom:
            jsonschema.validate(item, {**custom[kind], "$defs": custom["$defs"]})
        else:
            kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
    except jsonschema.ValidationError as error:
        path = ".".join(str(p) for p in error.absolute_path)
        return (Finding(where(item), f"schema: {path}: {error.message[:200]}"),)
    except kubernetes_validate.SchemaNotFoundError:
        return (Finding(where(item), f"no schema for {kind}"),)
    return ()
