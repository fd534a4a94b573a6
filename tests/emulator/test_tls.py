import socket
import ssl
import threading

import pytest

from podidentity.emulator.tls import CertificateAuthority, trust_bundle, trust_environment


def _strict_context(bundle):
    context = ssl.create_default_context(cafile=bundle)
    # The default from Python 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _handshake(certificate, context, name):
    ours, theirs = socket.socketpair()

    def serve():
        try:
            certificate.server_context().wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        with context.wrap_socket(ours, server_hostname=name) as client:
            return client.getpeercert()
    finally:
        ours.close()
        server.join()


@pytest.fixture(scope="module")
def authority():
    return CertificateAuthority()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


@pytest.mark.parametrize("name", ["arm.test", "127.0.0.1", "::1"])
def test_a_strict_client_accepts_every_name_and_address_of_the_certificate(authority, ca_file, tmp_path, name):
    certificate = authority.issue(tmp_path / "certs", "arm.test", "127.0.0.1", "::1")
    assert _handshake(certificate, _strict_context(ca_file), name)["subject"] == ((("commonName", "arm.test"),),)


def test_a_name_that_is_not_in_the_certificate_is_refused(authority, ca_file, tmp_path):
    certificate = authority.issue(tmp_path, "arm.test")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _handshake(certificate, _strict_context(ca_file), "other.test")


def test_another_authority_is_not_trusted(authority, ca_file, tmp_path):
    certificate = CertificateAuthority().issue(tmp_path, "arm.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(certificate, _strict_context(ca_file), "arm.test")


def test_a_certificate_needs_a_host(authority, tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        authority.issue(tmp_path)


def test_only_the_owner_can_read_the_key(authority, tmp_path):
    assert authority.issue(tmp_path, "arm.test").key.stat().st_mode & 0o777 == 0o600


def test_a_certificate_can_be_issued_again_under_the_same_name(authority, tmp_path):
    first = authority.issue(tmp_path, "arm.test")
    before = first.key.read_bytes()
    assert authority.issue(tmp_path, "arm.test").key.read_bytes() != before


def test_the_bundle_keeps_what_each_variable_points_at(authority, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    others = {}
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        others[variable] = CertificateAuthority(variable).pem.strip()
        path = tmp_path / f"{variable}.pem"
        path.write_bytes(b"# a comment\n" + others[variable])
        monkeypatch.setenv(variable, str(path))

    bundle = trust_bundle(authority.pem, tmp_path / "bundle.pem").read_bytes()

    assert all(pem in bundle for pem in [*others.values(), authority.pem.strip()])
    assert b"a comment" not in bundle


def test_the_bundle_reads_folders_of_certificates_once_each(authority, tmp_path, monkeypatch):
    folder = tmp_path / "certs"
    folder.mkdir()
    other = CertificateAuthority("other").pem
    (folder / "a.pem").write_bytes(other)
    (folder / "1234abcd.0").write_bytes(other)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder))
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)

    bundle = trust_bundle(authority.pem, tmp_path / "bundle.pem").read_bytes()

    assert bundle.count(other.strip()) == 1


def test_the_bundle_falls_back_to_certifi_where_requests_is_told_nothing(authority, tmp_path, monkeypatch):
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))

    bundle = trust_bundle(authority.pem, tmp_path / "bundle.pem").read_bytes()

    assert bundle.count(b"BEGIN CERTIFICATE") > 50


def test_children_are_told_of_the_bundle_by_every_common_variable(tmp_path):
    environment = trust_environment(tmp_path / "bundle.pem")
    assert set(environment) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    assert set(environment.values()) == {str(tmp_path / "bundle.pem")}
