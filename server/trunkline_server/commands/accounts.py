"""The commands on accounts, put together. All of them ask a running service, through the Python client."""

import argparse
from typing import Any

from trunkline_server.commands.audit import add_audit
from trunkline_server.commands.credits import add_credits
from trunkline_server.commands.keys import add_keys
from trunkline_server.commands.usage import add_usage


def add_account_commands(commands: Any, target: argparse.ArgumentParser) -> Any:
    """Adds `keys`, `credits`, `usage` and `audit`; gives the actions of the last one, to which others may add.

    Args:
        commands: the subparsers of the whole command.
        target: says where the service is; see `target_arguments`.
    """
    add_keys(commands, [target])
    add_credits(commands, [target])
    add_usage(commands, [target])
    return add_audit(commands, [target])
