"""A worker's environment variables, out of the resource and the Secrets and ConfigMaps in the same file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentqueue.errors import InvalidSpec
from agentqueue.spec.pods import EnvFrom, EnvKey, EnvVar

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Documents:
    """What else a file holds, by name, and the variables of the shell that stand in for Secrets kept out of it."""

    secrets: Mapping[str, Mapping[str, str]] = field(repr=False)
    config_maps: Mapping[str, Mapping[str, str]]
    shell: Mapping[str, str] = field(repr=False)


def resolve_variables(
    agent: str, env: Sequence[EnvVar], env_from: Sequence[EnvFrom], documents: Documents
) -> dict[str, str]:
    """The variables, as the kubelet would set them: `envFrom` in order, then `env`, with `$(NAME)` filled in.

    A key of a Secret or ConfigMap that is not in the file is taken from the shell's variable of the same name as the
    one to set.

    Raises:
        InvalidSpec: a value that only a cluster has; the message says what to do here.
    """
    values: dict[str, str] = {}
    for source in env_from:
        values |= _all_of(agent, source, documents)
    for variable in env:
        found = _value(agent, variable, documents)
        if found is not None:
            values[variable.name] = expand(found, values) if variable.value_from is None else found
    return values


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` filled in where the name is known, `$$` for a dollar sign: the kubelet's rule."""

    def fill(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else values.get(match[1], match[0])

    return _REFERENCE.sub(fill, text)


def _all_of(agent: str, source: EnvFrom, documents: Documents) -> dict[str, str]:
    reference = source.secret_ref or source.config_map_ref
    if reference is None:
        return {}
    kind, objects = ("Secret", documents.secrets) if source.secret_ref else ("ConfigMap", documents.config_maps)
    data = objects.get(reference.name)
    if data is None and not reference.optional:
        raise InvalidSpec(
            f"agent {agent}: envFrom names the {kind} {reference.name}, which is not in the file: "
            "add it as another document, or mark it optional and set its variables in your shell"
        )
    prefix = source.prefix or ""
    return {prefix + key: value for key, value in (data or {}).items() if _VARIABLE.fullmatch(prefix + key)}


def _value(agent: str, variable: EnvVar, documents: Documents) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value or ""
    if source.secret_key_ref:
        return _key(agent, variable.name, "Secret", source.secret_key_ref, documents)
    if source.config_map_key_ref:
        return _key(agent, variable.name, "ConfigMap", source.config_map_key_ref, documents)
    kind = "fieldRef" if source.field_ref else "resourceFieldRef"
    raise InvalidSpec(
        f"agent {agent}: env {variable.name} comes from a {kind}, which only a pod has: "
        "give a plain value in the file that you run here"
    )


def _key(agent: str, name: str, kind: str, reference: EnvKey, documents: Documents) -> str | None:
    objects = documents.secrets if kind == "Secret" else documents.config_maps
    found = objects.get(reference.name, {}).get(reference.key, documents.shell.get(name))
    if found is None and not reference.optional:
        raise InvalidSpec(
            f"agent {agent}: env {name} comes from key {reference.key} of the {kind} {reference.name}, which is not in "
            f"the file: add it as another document, or set {name} in your shell"
        )
    return found
