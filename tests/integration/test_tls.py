"""The relay under TLS, with certificates made for the run."""

import asyncio
import datetime
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from examples.demo.servers import Process, free_port, tool


class Authority:
    """Issues certificates for 127.0.0.1, for servers and for clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.file = folder / "ca.pem"
        own = self._certificate(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(subject, key.public_key(), x509.BasicConstraints(ca=False, path_length=None))
        files = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pkcs8 = serialization.PrivateFormat.PKCS8
        plain = serialization.NoEncryption()
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
        return files

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
        address = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(), now - hour, now + hour)
        signed = builder.add_extension(constraints, critical=True).add_extension(address, critical=False)
        return signed.sign(self._key, hashes.SHA256())


async def test_only_known_clients_are_let_in(tmp_path: Path) -> None:
    """With a certificate of the authority one speaks TLS to the relay; without one, or without TLS, not at all."""
    authority, port = Authority(tmp_path), free_port()
    (certificate, key), client = authority.issue("relay"), authority.issue("client")
    tls = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certs", str(authority.file)]
    env = {
        "AWAITHUMANS_RELAY_SECRET": "x" * 16,
        "AWAITHUMANS_PAYLOAD_KEY": "A" * 43,
        "AWAITHUMANS_ADMIN_API_TOKEN": "t",
    }
    serve = [tool("awaithumans-relay"), "serve", "--port", str(port), "--temporal", "127.0.0.1:9", *tls]
    relay = Process(serve, tmp_path / "relay", env)
    relay.start()
    known, unknown = (ssl.create_default_context(cafile=authority.file) for _ in range(2))
    known.load_cert_chain(*client)
    url = f"https://localhost:{port}/healthz"
    try:
        async with httpx.AsyncClient(verify=known) as http, asyncio.timeout(60):
            while True:
                try:
                    assert (await http.get(url)).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        async with httpx.AsyncClient(verify=unknown) as stranger:
            with pytest.raises(httpx.TransportError):
                await stranger.get(url)
            with pytest.raises(httpx.TransportError):
                await stranger.get(url.replace("https", "http"))
    finally:
        await asyncio.to_thread(relay.stop)
