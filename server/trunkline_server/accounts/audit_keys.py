"""The key that checkpoints are signed with: two PEM files, of which one is for the server alone."""

import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from trunkline_server.accounts.audit_checkpoints import (
    DEFAULT_ORIGIN,
    CheckpointSigner,
    key_id_of,
)
from trunkline_server.accounts.audit_file import sync_directory, write_all

MAX_KEY_BYTES: Final = 16 * 1024


class UnusableKey(Exception):
    """A file does not hold a key for checkpoints. The text says why, for the operator."""


def create_key(private_path: Path, public_path: Path) -> str:
    """Make a pair of keys: the private one for nobody but the owner. The id of the key.

    Raises:
        FileExistsError: one of them is there; nothing is overwritten.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if public_path.exists():
        raise FileExistsError(f"{public_path} exists")
    _create(private_path, private, 0o600)
    _create(public_path, public, 0o644)
    return key_id_of(key.public_key())


def load_signer(path: Path, origin: str = DEFAULT_ORIGIN) -> CheckpointSigner:
    """The signer whose private key is in a PEM file.

    Raises:
        UnusableKey, OSError.
    """
    try:
        key = load_pem_private_key(_read_key(path), None)
    except (ValueError, TypeError) as error:
        raise UnusableKey(f"{path} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"{path} is no Ed25519 key")
    return CheckpointSigner(key, origin)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        UnusableKey, OSError.
    """
    try:
        key = load_pem_public_key(_read_key(path))
    except ValueError as error:
        raise UnusableKey(f"{path} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UnusableKey(f"{path} is no Ed25519 key")
    return key


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES)
