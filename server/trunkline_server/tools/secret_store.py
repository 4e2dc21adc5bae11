"""The operator's secrets. Tools name them; no text ever holds one."""

from collections.abc import Mapping

from trunkline_server.tools.hosts import is_at
from trunkline_server.tools.problem import Problem


class SecretStore:
    """Secrets by name.

    Args:
        hosts: the only ones to which webhooks may take a secret, by its name. Without them the operator's own webhooks
            may take it anywhere, and those of requests nowhere: a caller could have it sent to a server of its own, or
            have a call signed there that another server would believe.
    """

    def __init__(self, values: Mapping[str, str], hosts: Mapping[str, frozenset[str]]) -> None:
        self._values = values
        self._hosts = hosts

    def value(self, name: str, path: str, url: str = "", *, is_asked: bool = False) -> str:
        """A secret.

        Args:
            path: of the field that names it.
            url: where a webhook takes it.
            is_asked: by a request, and not by the operator.

        Raises:
            Problem: there is none of this name, or not for this URL.
        """
        if not self._values.get(name):
            raise Problem(path, "names no secret of this server")
        if is_asked and name not in self._hosts:
            raise Problem(path, "names a secret that has no hosts, so only registered tools use it")
        if url and name in self._hosts and not is_at(url, self._hosts[name]):
            raise Problem(path, "names a secret that may not go to this host")
        return self._values[name]

    def values(
        self, names: Mapping[str, str], path: str, url: str = "", *, is_asked: bool = False
    ) -> dict[str, str]:
        """Secrets for headers or variables, by the names of those. Raises: Problem."""
        return {
            name: self.value(secret, f"{path}[{name[:64]!r}]", url, is_asked=is_asked)
            for name, secret in names.items()
        }
