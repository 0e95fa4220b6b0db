"""Certificates of a local edge, made at run time: root CA, device CA, server certificate.

The trust bundle is the root alone; the server sends its own certificate and the device CA, as edgeHub does. Files
persist in the state folder, so that clients trust the runtime after a restart; keys have mode 0600.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)

CaPair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


class Pki:
    """The certificates in one folder. Building it makes what is missing or nearly expired."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root_file = folder / "root-ca.pem"
        self.chain_file = folder / "server-chain.pem"
        self.key_file = folder / "server-key.pem"
        self._root_key_file = folder / "root-ca-key.pem"
        self._device_file = folder / "device-ca.pem"
        self._device_key_file = folder / "device-ca-key.pem"
        self._ensure_authorities()

    @property
    def trust_bundle(self) -> str:
        return self.root_file.read_text(encoding="ascii")

    def ensure_server_certificate(
        self, common_name: str, alternatives: tuple[str, ...], validity: timedelta | None = None
    ) -> None:
        """Writes the server's key and chain unless they are there, fit each other and the device CA, are fresh, and
        name all the alternatives. With a `validity` they are always made anew, and may be over already."""
        if validity is None and self._has_server_certificate(_subject_alternatives((common_name, *alternatives))):
            return
        key_pem, chain_pem, _ = self.issue_server_certificate(common_name, alternatives, validity or _VALIDITY)
        _write_private(self.key_file, key_pem)
        self.chain_file.write_bytes(chain_pem)

    def _has_server_certificate(self, names: list[x509.GeneralName]) -> bool:
        """Whether both files can be served: a runtime killed while it wrote them leaves some that cannot."""
        try:
            chain = x509.load_pem_x509_certificates(self.chain_file.read_bytes())
            key = serialization.load_pem_private_key(self.key_file.read_bytes(), password=None)
            authority = x509.load_pem_x509_certificate(self._device_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        current = chain[0]
        held = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_of_both = current.public_key() == key.public_key() and chain[1:] == [authority]
        return set(held) == set(names) and is_of_both and _is_fresh(current)

    def issue_server_certificate(
        self, common_name: str, alternatives: tuple[str, ...], validity: timedelta = _VALIDITY
    ) -> tuple[bytes, bytes, datetime]:
        """(key, certificate with its issuer behind it, end of validity), PEM."""
        authority = _load(self._device_file, self._device_key_file)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _build(
            common_name,
            key,
            authority,
            (
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (x509.SubjectAlternativeName(_subject_alternatives((common_name, *alternatives))), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (_usage(digital_signature=True), True),
            ),
            validity,
        )
        return _key_pem(key), _pem(certificate) + _pem(authority[0]), certificate.not_valid_after_utc

    def _ensure_authorities(self) -> None:
        if self._has_authorities():
            return
        root = _make_ca("Edgeweir local root CA", None, path_length=1)
        device = _make_ca("Edgeweir local device CA", root, path_length=0)
        for (certificate, key), file, key_file in (
            (root, self.root_file, self._root_key_file),
            (device, self._device_file, self._device_key_file),
        ):
            _write_private(key_file, _key_pem(key))
            file.write_bytes(_pem(certificate))

    def _has_authorities(self) -> bool:
        """Whether the files are there, whole, of one making, and fresh."""
        try:
            root = x509.load_pem_x509_certificate(self.root_file.read_bytes())
            device, key = _load(self._device_file, self._device_key_file)
            device.verify_directly_issued_by(root)
        except (FileNotFoundError, ValueError, InvalidSignature):
            return False
        return device.public_key() == key.public_key() and _is_fresh(root) and _is_fresh(device)


def _make_ca(common_name: str, issuer: CaPair | None, *, path_length: int) -> CaPair:
    key = ec.generate_private_key(ec.SECP256R1())
    extensions = (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (_usage(key_cert_sign=True, crl_sign=True), True),
    )
    return _build(common_name, key, issuer, extensions), key


def _build(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: CaPair | None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...],
    validity: timedelta = _VALIDITY,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An hour back: a client's clock may run behind ours.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _subject_alternatives(names: tuple[str, ...]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in dict.fromkeys(names)]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_fresh(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - _RENEW_BEFORE > datetime.now(UTC)


def _load(certificate_file: Path, key_file: Path) -> CaPair:
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key_file} does not hold an elliptic curve key")
    return x509.load_pem_x509_certificate(certificate_file.read_bytes()), key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
