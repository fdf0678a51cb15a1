"""Copies that only the owner of a private key can read, by age (https://age-encryption.org)."""

from __future__ import annotations

from pathlib import Path

from . import commands


def encrypt(path: Path, target: Path, recipient: str) -> None:
    """Encrypt a copy for a public key. Raises HostError."""
    argv = ["age", "--encrypt", "--recipient", recipient, "--output", str(target), str(path)]
    commands.run(argv, "Encrypting the copy")


def decrypt(path: Path, target: Path, identity: str) -> None:
    """Decrypt a copy; the private key goes through a pipe and into no file. Raises HostError."""
    argv = ["age", "--decrypt", "--identity", "-", "--output", str(target), str(path)]
    commands.run(argv, "Decrypting the copy", input=identity.encode())
