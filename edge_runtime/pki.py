"""A plant's own certificates for MQTT: an authority, the broker's certificate, and one for each client.

TLS says who the broker is, and a client's certificate who the client is: its common name becomes its user name
at the broker. For a plant without an authority of its own; where there is one, let that one sign, by the same
rules: common name = station id, clients for client authentication only. Profile: RFC 5280, EC P-256.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kenpin.errors import ConfigError, private_again, reason_of
from kenpin.synced_file import create_synced

AUTHORITY = "ca"
# A level of a topic, as the broker puts it into its rules; and a folder, so no dots alone.
_CLIENT = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,64}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*")
_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True)
class Lifetime:
    """When a certificate is valid.

    Attributes:
        begin: From here, UTC.
        end: Until here, UTC.
    """

    begin: datetime
    end: datetime

    @classmethod
    def of_days(cls, days: int) -> Lifetime:
        """From yesterday on, as clocks differ, for so many days from now."""
        now = datetime.now(timezone.utc)
        return cls(now - _CLOCK_SKEW, now + timedelta(days=days))


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key.

    Attributes:
        key: The private key.
        certificate: The certificate.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as a file."""
        return self.certificate.public_bytes(Encoding.PEM)

    def save(self, folder: Path, name: str) -> None:
        """Write `<name>.pem` and `<name>.key`, mode 0600.

        Args:
            folder: Where; it exists.
            name: Of the files.

        Raises:
            ConfigError: One of them exists, as none is ever overwritten; or it cannot be written.
        """
        secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_new(folder / f"{name}.key", secret)
        write_new(folder / f"{name}.pem", self.certificate_pem)


@dataclass(frozen=True)
class Authority:
    """Who signs. Its key makes stations and brokers: keep it off both.

    Attributes:
        own: Its key and certificate.
    """

    own: Credentials

    @classmethod
    def create(cls, lifetime: Lifetime) -> Authority:
        """A new authority, which signs its own certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("kenpin MQTT authority")
        unsigned = _unsigned(name, key, name, lifetime)
        unsigned = unsigned.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        unsigned = unsigned.add_extension(_usage(signs_certificates=True), critical=True)
        return cls(Credentials(key, unsigned.sign(key, hashes.SHA256())))

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read `ca.pem` and `ca.key`.

        Raises:
            ConfigError: One of them is missing, damaged or expired, or the key can be read by others.
        """
        secret, public = folder / f"{AUTHORITY}.key", folder / f"{AUTHORITY}.pem"
        try:
            if secret.stat().st_mode & 0o077:
                raise ConfigError(
                    "the authority's key can be read by others",
                    where=secret,
                    cure=private_again(secret),
                )
            key = load_pem_private_key(secret.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(public.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            why = reason_of(error) if isinstance(error, OSError) else "ca.key or ca.pem is damaged"
            raise ConfigError(
                f"the authority cannot be read: {why}", where=folder, cure="give the folder of init-pki"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError("ca.key is not the key of ca.pem", where=folder, cure="restore both of one copy")
        if certificate.not_valid_after_utc < datetime.now(timezone.utc):
            raise ConfigError("the authority has expired", where=public, cure="make a new one: init-pki")
        return cls(Credentials(key, certificate))

    def issue_broker(self, hosts: Sequence[str], lifetime: Lifetime) -> Credentials:
        """A certificate for the broker, good as a server only.

        Args:
            hosts: Names and addresses that clients reach it by; at least one.
            lifetime: When it is valid; it ends with the authority's at the latest.

        Raises:
            ConfigError: There is no host, one is neither a name nor an address.
        """
        if not hosts:
            raise ConfigError(
                "a broker's certificate needs a host",
                cure="name it as the stations reach it: --host broker.lan",
            )
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        return self._issue(hosts[0][:64], lifetime, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def issue_client(self, name: str, lifetime: Lifetime) -> Credentials:
        """A certificate for a station or another client, good as a client only.

        Args:
            name: The common name: the station's id, the last level of its topic.
            lifetime: When it is valid; it ends with the authority's at the latest.

        Raises:
            ConfigError: The name could not be a level of a topic.
        """
        if not _CLIENT.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a client", cure="use 1 to 64 of A-Z a-z 0-9 _ . -, no /"
            )
        return self._issue(name, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self,
        name: str,
        lifetime: Lifetime,
        purpose: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> Credentials:
        issuer, key = self.own.certificate, ec.generate_private_key(ec.SECP256R1())
        lifetime = Lifetime(lifetime.begin, min(lifetime.end, issuer.not_valid_after_utc))
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.own.key.public_key())
        unsigned = _unsigned(_name(name), key, issuer.subject, lifetime)
        unsigned = unsigned.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        unsigned = unsigned.add_extension(_usage(signs_certificates=False), critical=True)
        # Or a station could play the broker for the others.
        unsigned = unsigned.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        unsigned = unsigned.add_extension(signed_by, critical=False)
        if alternatives is not None:
            unsigned = unsigned.add_extension(alternatives, critical=False)
        return Credentials(key, unsigned.sign(self.own.key, hashes.SHA256()))


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, mode 0600, and bring it to the disk.

    Raises:
        ConfigError: It exists, or cannot be written.
    """
    try:
        create_synced(path, data, mode=0o600)
    except FileExistsError:
        raise ConfigError(
            "the file exists, and is not overwritten", where=path, cure="choose another folder, or move it away"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot write the file: {error.strerror}", where=path, cure="choose a folder that you may write"
        ) from None


def _unsigned(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, lifetime: Lifetime
) -> x509.CertificateBuilder:
    own = key.public_key()
    return (
        x509.CertificateBuilder(issuer, subject, own, x509.random_serial_number())
        .not_valid_before(lifetime.begin)
        .not_valid_after(lifetime.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
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


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if _HOST.fullmatch(host):
            return x509.DNSName(host)
        raise ConfigError(
            f"{host!r} is neither a name nor an address",
            cure="give it without mqtts:// and port, such as broker.lan or 192.0.2.7",
        ) from None
