"""Environment variables of a worker, from the resource and from the Secrets and ConfigMaps in the same file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentqueue.errors import InvalidSpec
from agentqueue.spec.pods import EnvFrom, EnvKey, EnvVar

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Documents:
    """Secrets and ConfigMaps of a file by name, and the shell's variables, which replace Secrets that are not in it."""

    secrets: Mapping[str, Mapping[str, str]] = field(repr=False)
    config_maps: Mapping[str, Mapping[str, str]]
    shell: Mapping[str, str] = field(repr=False)


def resolve_variables(
    agent: str, env: Sequence[EnvVar], env_from: Sequence[EnvFrom], documents: Documents
) -> dict[str, str]:
    """Return the variables as the kubelet sets them: `envFrom` in order, then `env`, with `$(NAME)` expanded.

    For a key of a Secret or ConfigMap that is not in the file, the shell's variable with the name of the variable is
    used.

    Args:
        agent: name of the agent, for messages.
        env: the agent's `env`.
        env_from: the agent's `envFrom`.
        documents: objects that the variables may refer to.

    Raises:
        InvalidSpec: a value exists only in a cluster. The message states how to set it here.
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
    """Return the text with `$(NAME)` replaced if the name is known, and `$$` by a dollar sign, as the kubelet does."""

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
        f"agent {agent}: env {variable.name} comes from a {kind}, which exists only in a pod: "
        "use a plain value in a file that you run here"
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
