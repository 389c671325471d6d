"""Certificates as an authority would issue them, for keys of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

MAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION
STAMPS = ExtendedKeyUsageOID.TIME_STAMPING
KEYS: dict[str, Any] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


def issued(
    key: Any, *, use: ObjectIdentifier | None = MAIL, is_critical: bool = False, days: tuple[int, int] = (-1, 30)
) -> str:
    """A certificate for `key` with its issuer's behind it; valid from and to so many days from now."""
    authority = ec.generate_private_key(ec.SECP256R1())
    root, holder = _name("An Authority"), _name("A Publisher")
    identity = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    above = (
        _begun(root, root, authority, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(identity, critical=False)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        _begun(holder, root, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
    )
    if use is not None:
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([use]), critical=is_critical)
    return pem(leaf.sign(authority, hashes.SHA256())) + pem(above)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: Any, *, password: bytes | None = None) -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    text: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return text.decode()


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, common), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _begun(subject: x509.Name, issuer: x509.Name, key: Any, days: tuple[int, int]) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
