"""The certificate and key that C2PA manifests are signed with: the operator's, or one made here and kept.

    credential = given_credential(certificates, key)        # PEM texts
    credential = kept_credential(volume / "flux-engine" / "c2pa")

Both raise CredentialFault, whose text names what is wrong and holds nothing of a key. A certificate that was made here
vouches for an installation, not for a name: readers call it valid and not trusted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from flux_engine.settings import Algorithm

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

LASTS: Final = timedelta(days=3650)
RENEWED_BEFORE: Final = timedelta(days=30)
CHAIN_FILE: Final = "certificates.pem"
KEY_FILE: Final = "private_key.pem"
CURVES: Final[dict[str, Algorithm]] = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


class CredentialFault(Exception):
    """No manifest can be signed with it. The text names the part and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A chain of certificates in PEM, the signer's first, and the signer's key."""

    certificates: str
    private_key: SecretStr
    algorithm: Algorithm
    is_self_made: bool

    @property
    def fingerprint(self) -> str:
        """The signer's certificate as 8 hexadecimal digits."""
        first = x509.load_pem_x509_certificates(self.certificates.encode())[0]
        return first.fingerprint(hashes.SHA256()).hex()[:8]


def given_credential(certificates: str, private_key: SecretStr, algorithm: Algorithm | None = None) -> Credential:
    """The operator's own. Raises CredentialFault where the parts do not belong together or are out of date."""
    try:
        chain = x509.load_pem_x509_certificates(certificates.encode())
    except ValueError:
        raise CredentialFault("the certificates are no PEM; give the signer's first, then the others up") from None
    key = _key(private_key)
    if _public(key) != _public(chain[0]):
        raise CredentialFault("the private key does not belong to the first certificate; give the signer's first")
    now = datetime.now(UTC)
    if not chain[0].not_valid_before_utc <= now < chain[0].not_valid_after_utc:
        raise CredentialFault("the signer's certificate is not valid today; renew it")
    fitting = _algorithms(key)
    if algorithm is not None and algorithm not in fitting:
        raise CredentialFault(f"the key cannot sign by {algorithm}; it can by {', '.join(fitting)}")
    return Credential(
        certificates="".join(_pem(each) for each in chain),
        private_key=SecretStr(_key_pem(key)),  # readers of PKCS #1 and of SEC 1 differ: one form from here on
        algorithm=algorithm or fitting[0],
        is_self_made=False,
    )


def kept_credential(folder: Path) -> Credential:
    """The one in `folder`, made there where there is none or its time is over; the same for all who share the folder.

    Raises CredentialFault where it cannot be kept or read.
    """
    try:
        return _read(folder) or _made(folder)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise CredentialFault(
            f"the key of this installation cannot be kept on the volume ({why}); make it writable, or give a "
            "certificate and a key"
        ) from None


def _read(folder: Path) -> Credential | None:
    place = folder / "current"
    try:
        certificates = (place / CHAIN_FILE).read_text(encoding="ascii")
        key = (place / KEY_FILE).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    try:
        made = given_credential(certificates, SecretStr(key))
        ends = x509.load_pem_x509_certificates(certificates.encode())[0].not_valid_after_utc
    except (CredentialFault, ValueError):
        raise CredentialFault(
            f"the key of this installation is damaged; remove `{folder.name}` on the volume"
        ) from None
    if ends - datetime.now(UTC) < RENEWED_BEFORE:
        shutil.rmtree(place, ignore_errors=True)
        return None
    return Credential(
        certificates=made.certificates, private_key=made.private_key, algorithm=made.algorithm, is_self_made=True
    )


def _made(folder: Path) -> Credential:
    """Made in a folder of its own, which becomes `current` in one step: of two workers, the first one's counts."""
    name = uuid.uuid4().hex
    place = folder / f".{name}.partial"
    place.mkdir(parents=True, mode=0o700)
    chain, key = _new_chain(name)
    (place / CHAIN_FILE).write_text(chain, encoding="ascii")
    descriptor = os.open(place / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    try:
        place.rename(folder / "current")
    except OSError:  # another worker was first
        shutil.rmtree(place, ignore_errors=True)
    made = _read(folder)
    if made is None:
        raise FileNotFoundError(errno.ENOENT, "")
    return made


def _new_chain(name: str) -> tuple[str, str]:
    """A certificate for signing under one for issuing, as C2PA's profile asks for, and the signer's key. The issuer's
    key is not kept."""
    issuer_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _named("flux-engine issuer (made by this installation)", name)
    signer = _named("flux-engine (made by this installation)", name)
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    root = (
        _certificate(issuer, issuer, issuer_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(issuer_id, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    leaf = (
        _certificate(signer, issuer, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return _pem(leaf) + _pem(root), _key_pem(key)


def _named(common_name: str, installation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"flux-engine {installation[:8]}"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # readers' clocks differ
        .not_valid_after(now + LASTS)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key(text: SecretStr) -> Key:
    try:
        key = serialization.load_pem_private_key(text.get_secret_value().encode(), password=None)
    except TypeError:
        raise CredentialFault("the private key has a password; give it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialFault("the private key is no PEM of a private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise CredentialFault("the private key must be of an elliptic curve, of RSA or of Ed25519")
    return key


def _algorithms(key: Key) -> tuple[Algorithm, ...]:
    """What `key` can sign by, the usual one first."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return ("ed25519",)
    if isinstance(key, rsa.RSAPrivateKey):
        return ("ps256", "ps384", "ps512")
    if key.curve.name not in CURVES:
        raise CredentialFault("the private key's curve must be P-256, P-384 or P-521")
    return (CURVES[key.curve.name],)


def _public(holder: Key | x509.Certificate) -> str:
    spki = holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
