"""`trunkline init`: what accounts need before the first start, and the first admin key."""

import os
import secrets
from pathlib import Path
from typing import Final

from trunkline_server.config import DEFAULT_FILE, ConfigError, Settings, has_accounts

ACCOUNTS: Final = """[accounts]
database_url = "sqlite:trunkline.db"
pepper_file = "trunkline.pepper"
audit_key_file = "trunkline-audit.key"
audit_public_key_files = ["trunkline-audit.pub"]
audit_checkpoint_file = "trunkline-audit.jsonl"
"""
FILE: Final = f"""# Everything that can be said here: docs/configuration.md.

{ACCOUNTS}
# Keys of a prepaid plan need credits: trunkline credits grant 10 --organization acme
[[plans]]
id = "prepaid"
prepaid = true
"""


def write_configuration(source: str) -> str:
    """A file with accounts where there is no file yet. Returns its name; the one that is there otherwise.

    Args:
        source: the file that was read; empty where there is none.
    """
    if source:
        return source
    with open(DEFAULT_FILE, "x", encoding="utf-8") as file:
        file.write(FILE)
    return DEFAULT_FILE


def require_accounts(settings: Settings, source: str) -> None:
    """Raises: ConfigError, with the lines that are missing."""
    if not has_accounts(settings):
        lines = ACCOUNTS.strip().replace("\n", "\n  ")
        raise ConfigError([f"{source} has no accounts; add, for example,\n  {lines}"])


def write_pepper(settings: Settings) -> str:
    """A new pepper, where one is configured as a file that is not there. Returns the file that was made, or nothing.

    Raises:
        ConfigError.
    """
    name = settings.accounts.pepper_file
    if not name or Path(name).exists():
        return ""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError([f"accounts.pepper_file: {name}: {error.strerror}"]) from error
    return name
