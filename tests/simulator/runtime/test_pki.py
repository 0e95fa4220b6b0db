"""Certificates: made once, made again when they cannot be served any more."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from simulator.runtime.pki import Pki


def started(folder: Path, validity: timedelta | None = None) -> Pki:
    """What a start of the runtime does."""
    pki = Pki(folder)
    pki.ensure_server_certificate("127.20.0.1", ("edgehub",), validity)
    return pki


def served(pki: Pki) -> x509.Certificate:
    """The server's certificate, once it is clear that clients who trust the bundle can be served."""
    server, device = x509.load_pem_x509_certificates(pki.chain_file.read_bytes())
    device.verify_directly_issued_by(x509.load_pem_x509_certificate(pki.trust_bundle.encode()))
    server.verify_directly_issued_by(device)
    key = serialization.load_pem_private_key(pki.key_file.read_bytes(), password=None)
    assert key.public_key() == server.public_key()
    return server


def test_a_restart_serves_the_same_certificate(tmp_path: Path) -> None:
    assert served(started(tmp_path)) == served(started(tmp_path))


def test_a_runtime_killed_while_it_renewed_its_certificate_starts_with_a_new_one(tmp_path: Path) -> None:
    before = started(tmp_path)
    chain = before.chain_file.read_bytes()
    before.ensure_server_certificate("127.20.0.1", ("edgehub",), timedelta(days=365))
    before.chain_file.write_bytes(chain)  # the new key was written, the new chain not
    served(started(tmp_path))


def test_a_new_authority_brings_a_new_server_certificate(tmp_path: Path) -> None:
    before = started(tmp_path)
    bundle = before.trust_bundle
    before.root_file.unlink()
    after = started(tmp_path)
    served(after)
    assert after.trust_bundle != bundle


def test_half_written_files_are_made_again(tmp_path: Path) -> None:
    pki = started(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        file.write_bytes(file.read_bytes()[:40])
        served(started(tmp_path))
    assert pki.key_file.stat().st_mode & 0o077 == 0


def test_a_certificate_may_be_over_when_it_is_made_and_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    assert served(started(tmp_path, timedelta(seconds=-5))).not_valid_after_utc < datetime.now(UTC)
    assert served(started(tmp_path)).not_valid_after_utc > datetime.now(UTC)
