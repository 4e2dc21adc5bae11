"""What all commands share that ask a running service: where it is, the key, and what their mistakes are."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from trunkline import Client, TrunklineError
from trunkline.channels import is_local

DEFAULT_TARGET: Final = "127.0.0.1:50051"
KEY_VARIABLE: Final = "TRUNKLINE_API_KEY"
# For what is answered from a database. A completion takes as long as the service lets it.
CALL_TIMEOUT_S: Final = 30.0
COMPLETION_TIMEOUT_S: Final = 600.0

# With any other status the service has said that nothing happened.
_UNKNOWN: Final = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)


class CommandError(Exception):
    """The command can't be carried out as it was given. The text is for whoever gave it."""


def target_arguments() -> argparse.ArgumentParser:
    """The parent of each command's parser."""
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument(
        "--target", metavar="HOST:PORT", default=DEFAULT_TARGET, help=f"default: {DEFAULT_TARGET}"
    )
    target.add_argument("--tls", action="store_true")
    return target


def new_client(arguments: argparse.Namespace, timeout_s: float = CALL_TIMEOUT_S) -> Client:
    """A client of the service that was named, with the key of the environment.

    Raises:
        CommandError: the key can't be sent there.
    """
    key = os.environ.get(KEY_VARIABLE) or None
    target: str = arguments.target
    if key is not None and not arguments.tls and not is_local(target):
        raise CommandError(f"the key would travel to {target} in plaintext: use --tls")
    try:
        return Client(target, api_key=key, tls=arguments.tls, default_timeout_s=timeout_s)
    except ValueError as error:
        raise CommandError(f"{KEY_VARIABLE}: {error}") from error


@contextmanager
def changing(advice: str) -> Iterator[None]:
    """Around a call that changes something: where it fails so that nobody knows whether it did, says what to do."""
    try:
        yield
    except (TrunklineError, KeyboardInterrupt) as error:
        if not isinstance(error, TrunklineError) or error.code in _UNKNOWN:
            print(f"trunkline: this may have been done all the same: {advice}", file=sys.stderr)
        raise
