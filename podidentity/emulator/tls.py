"""A certificate authority for the stand-ins, and a way for child processes to trust it.

azure-core refuses to send a bearer token over plain HTTP, so ARM and Entra must be served with TLS here as well.
The certificates hold what `VERIFY_X509_STRICT` asks for (the default of `ssl.create_default_context` from
Python 3.13 on): key identifiers, critical basic constraints and key usage.

Whoever starts a child gives it one bundle: all that this process trusts already, and our CA. On many company
machines `SSL_CERT_FILE` and its like are set; replacing them by our CA alone would cut the child off.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SKEW = timedelta(hours=1)
"""How far back a certificate is valid: a node's or a container's clock may lag."""

_LIFETIME = timedelta(days=397)
"""The longest life that clients with browser rules (Go on macOS, for one) accept of a server certificate."""

_REQUESTS_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_BUNDLE_VARIABLES = ("SSL_CERT_FILE", *_REQUESTS_VARIABLES, "NODE_EXTRA_CA_CERTS")
_PEM_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A server certificate and its private key, as PEM files (what `ssl` and every other server can load)."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a TLS server context that presents this certificate and asks for none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class CertificateAuthority:
    """A CA that lives as long as this object: its key is never written anywhere."""

    def __init__(self, common_name: str = "podidentity emulator CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(common_name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(constraints, critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem: bytes = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, *hosts: str) -> Certificate:
        """Write `<first host>.crt` and `.key` into `folder`: a server certificate for DNS names and IP addresses.

        Raises ValueError where no host is given, OSError where the folder cannot be written.
        """
        if not hosts:
            raise ValueError("a server certificate needs at least one DNS name or IP address")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(hosts[0]), self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(_authority_identifier(self._certificate), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        stem = hosts[0].replace("*", "_").replace(":", "_")
        issued = Certificate(certificate=folder / f"{stem}.crt", key=folder / f"{stem}.key")
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_private(issued.key, key)
        return issued


def trust_bundle(ca_pem: bytes, out: Path) -> Path:
    """Write `ca_pem` and every certificate that this process trusts today into the file `out`, and return `out`.

    Looked at: what OpenSSL uses (`SSL_CERT_FILE`, `SSL_CERT_DIR` or the system's default) and what requests and curl
    use (`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, a file or a folder, or certifi's bundle where neither is set).
    """
    blocks = dict.fromkeys(block for path in _trusted_files() for block in _PEM_BLOCK.findall(path.read_bytes()))
    out.write_bytes(b"\n".join([*blocks, ca_pem.strip()]) + b"\n")
    return out


def trust_environment(bundle: Path) -> dict[str, str]:
    """Return the environment variables that make OpenSSL, requests, curl and Node.js children use `bundle`."""
    return dict.fromkeys(_BUNDLE_VARIABLES, str(bundle))


def _trusted_files() -> Iterator[Path]:
    openssl = ssl.get_default_verify_paths()
    named = [os.environ[name] for name in _REQUESTS_VARIABLES if os.environ.get(name)]
    for source in (openssl.cafile, *(openssl.capath or "").split(os.pathsep), *(named or [certifi.where()])):
        if source:
            yield from _files(Path(source))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(entry for entry in path.iterdir() if entry.is_file())
    elif path.is_file():
        yield path


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now - _SKEW + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
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


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
