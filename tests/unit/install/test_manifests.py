"""manifests/install is what the chart renders to, and its rights are those that the operator declares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentqueue_operator.resources.rbac import LEADER_ELECTION_RULES, PolicyRule, namespace_rules
from tools import manifests

MANIFESTS = Path(__file__).parents[3] / "manifests"
INSTALLED = list(yaml.safe_load_all((MANIFESTS / "install" / "agentqueue.yaml").read_text()))


def one(kind: str) -> Any:
    (found,) = [manifest for manifest in INSTALLED if manifest["kind"] == kind]
    return found


def rules(declared: Sequence[PolicyRule]) -> list[tuple[str, str, tuple[str, ...]]]:
    return sorted((right.group, right.resource, right.verbs) for right in declared)


def granted(role: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return sorted((*rule["apiGroups"], *rule["resources"], tuple(rule["verbs"])) for rule in role["rules"])


def test_roles_grant_what_the_operator_declares_and_nothing_more() -> None:
    assert granted(one("ClusterRole")) == rules(namespace_rules(read_secrets=True))
    assert granted(one("Role")) == rules(LEADER_ELECTION_RULES)


def test_no_right_is_a_wildcard() -> None:
    for role in (one("ClusterRole"), one("Role")):
        assert not any("*" in rule[part] for rule in role["rules"] for part in ("apiGroups", "resources", "verbs"))


def test_pods_meet_the_restricted_standard_on_a_read_only_root() -> None:
    pod = one("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_nothing_tells_of_helm() -> None:
    text = (MANIFESTS / "install" / "agentqueue.yaml").read_text()
    assert "helm.sh" not in text
    assert "managed-by" not in text


@pytest.mark.parametrize("folder", ["install", "crd"])
def test_kustomization_names_every_manifest_beside_it(folder: str) -> None:
    listed = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in (MANIFESTS / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert {name for name in listed if not name.startswith("..")} == there
    assert all((MANIFESTS / folder / name).exists() for name in listed)


def test_without_helm_an_untouched_file_is_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_helm", lambda: None)
    assert manifests.install_yaml() == manifests.INSTALL.read_text()


def test_without_helm_an_edit_of_the_file_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    edited = tmp_path / "manifests" / "install" / "agentqueue.yaml"
    edited.parent.mkdir(parents=True)
    edited.write_text(manifests.INSTALL.read_text().replace("replicas: 2", "replicas: 3"))
    monkeypatch.setattr(manifests, "_helm", lambda: None)
    monkeypatch.setattr(manifests, "INSTALL", edited)
    monkeypatch.setattr(manifests, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="differs from what charts/agentqueue renders"):
        manifests.install_yaml()


def test_without_helm_a_change_of_the_chart_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chart = tmp_path / "agentqueue"
    for source in manifests._sources():
        copied = chart / source.relative_to(manifests.CHART)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(source.read_text().replace("periodSeconds: 10", "periodSeconds: 11"))
    monkeypatch.setattr(manifests, "_helm", lambda: None)
    monkeypatch.setattr(manifests, "CHART", chart)
    with pytest.raises(RuntimeError, match="differs from what charts/agentqueue renders"):
        manifests.install_yaml()
