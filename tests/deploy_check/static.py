"""Runs all checks of rendered objects that need neither a cluster nor processes."""

from __future__ import annotations

from deploy_check.agreement import check_agreement
from deploy_check.api_rules import check_api_rules
from deploy_check.monitoring import check_monitoring
from deploy_check.objects import Finding, Object
from deploy_check.overload_proxy import check_overload_proxy
from deploy_check.policies import check_policies
from deploy_check.reachability import check_reachability
from deploy_check.references import check_references
from deploy_check.schemas import check_schemas
from deploy_check.settings import check_settings


def check_objects(objects: list[Object], is_overlay: bool = True) -> list[Finding]:
    """Finds problems in rendered objects.

    Args:
        objects: The rendered objects.
        is_overlay: Whether the objects are applied as they are; the base has no image tags.
    """
    findings = check_schemas(objects) or check_api_rules(objects)
    if findings:
        # The other checks rely on valid objects.
        return findings
    return [
        *check_references(objects),
        *check_reachability(objects),
        *check_agreement(objects),
        *check_monitoring(objects),
        *check_policies(objects, is_overlay),
        *check_settings(objects),
        *check_overload_proxy(objects),
    ]
