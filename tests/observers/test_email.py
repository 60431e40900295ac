"""E-mails of alerts, sent to a server of the protocol's few commands (RFC 5321, 3207, 4954) over a socket."""

import base64
import datetime
import email
import email.policy
import ipaddress
import socketserver
import ssl
import threading

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Round, Scores, load_guard
from fedguard.observers.alerts import Alerts
from fedguard.observers.receivers import Email

HOSTILE = "z\r\nBcc: eve@example.org\r\n\r\n.\r\n<b>hi</b> \u202e" + "x" * 80
GUARD = """
detectors: {name: norm_bound}
policy: {name: ban, strikes: 1, rule: {name: top, count: 1}}
alerts:
  on: [ban]
  limit: 1
  email: {host: localhost, port: PORT, security: SECURITY, user: guard, password_env: MAIL_PASSWORD,
          sender: guard@example.org, to: [ops@example.org, it@example.org]}
"""


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect."""

    card = Card("first", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10")


class Session(socketserver.StreamRequestHandler):
    """One conversation; ``server.mails`` gets what was sent: login, over TLS, addresses, message."""

    def handle(self):
        self.login, self.addresses = None, []
        if self.server.implicit:
            self.secure()
        self.say("220 test")
        while self.talk():
            self.secure()

    def talk(self):
        """Answer until the client leaves; True if it asks for TLS, after which it begins anew."""
        for line in self.rfile:
            word, _, rest = line.decode().strip().partition(" ")
            self.server.words.append(word.upper())
            match word.upper():
                case "EHLO":
                    offers = ["AUTH PLAIN"] if self.secured() else ["STARTTLS"] if self.server.context else []
                    self.say("250-localhost", *[f"250-{offer}" for offer in offers], "250 HELP")
                case "STARTTLS":
                    self.say("220 go")
                    return True
                case "AUTH":
                    self.login = base64.b64decode(rest.split()[1]).decode().split("\0")[1:]
                    self.say("235 ok" if self.login[1] == "s3cret" else "535 wrong password")
                case "RCPT":
                    self.addresses.append(rest.partition("<")[2].strip(">"))
                    self.say("250 ok")
                case "DATA":
                    self.say("354 go")
                    text = b"".join(iter(self.rfile.readline, b".\r\n"))
                    self.server.mails.append((self.login, self.secured(), self.addresses, text))
                    self.say("250 ok")
                case "QUIT":
                    self.say("221 bye")
                    return False
                case _:
                    self.say("250 ok")
        return False

    def say(self, *lines):
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def secured(self):
        return isinstance(self.connection, ssl.SSLSocket)

    def secure(self):
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)


class Server(socketserver.ThreadingTCPServer):
    """A mail server on a port of its own, with TLS if there is a context."""

    daemon_threads = True

    def __init__(self, context=None, implicit=False):
        super().__init__(("127.0.0.1", 0), Session)
        self.context, self.implicit = context, implicit
        self.mails, self.words = [], []

    def handle_error(self, request, address):
        """Nothing: a client that does not trust the certificate hangs up."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    @property
    def port(self):
        return self.server_address[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of localhost, in one file."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def context(certificate):
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def played(guard, rounds=3):
    """The alerts of a guard, each of whose rounds bans one client more; the last id is hostile."""
    ids = [f"hospital-{k}" for k in range(5)] + [HOSTILE]
    for index in range(rounds):
        values = np.ones(6)
        values[5 - index] = 90.0
        guard.process(Round(values[:, None], ids, index=index))
    (alerts,) = guard.observers
    alerts.close()
    return alerts.counts


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_the_guards_file_sends_mail_with_encryption_and_login(
    security, context, certificate, tmp_path, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MAIL_PASSWORD", "s3cret")
    with Server(context, implicit=security == "tls") as server:
        text = GUARD.replace("PORT", str(server.port)).replace("SECURITY", security)
        (tmp_path / "guard.yaml").write_text(text)
        counts = played(load_guard(tmp_path / "guard.yaml"))
    assert (counts["sent"], counts["suppressed"], counts["failed"]) == (1, 2, 0), "limit: 1"
    ((login, encrypted, addresses, raw),) = server.mails
    assert login == ["guard", "s3cret"]
    assert encrypted
    assert addresses == ["ops@example.org", "it@example.org"]
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == "FedGuard: clients banned (round 0)"
    assert message["From"] == "guard@example.org"
    assert message["To"] == "ops@example.org, it@example.org"
    assert message["Date"].datetime is not None
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Bcc"] is None
    body = message.get_content()
    assert body.startswith(r"round 0: 1 of 6 clients banned: z\x0d\x0aBcc:\x20eve\x40example.org\x0d\x0a")
    assert all(part not in body for part in ("<b>", "\u202e", "@example.org\n"))


@pytest.mark.parametrize("trusted", [False, True])
def test_no_password_goes_to_a_server_that_nobody_vouches_for(
    trusted, context, certificate, tmp_path, monkeypatch, caplog
):
    (tmp_path / "none.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate if trusted else tmp_path / "none.pem"))
    monkeypatch.setenv("MAIL_PASSWORD", "wrong")
    with Server(context) as server:
        text = GUARD.replace("PORT", str(server.port)).replace("SECURITY", "starttls")
        (tmp_path / "guard.yaml").write_text(text)
        counts = played(load_guard(tmp_path / "guard.yaml"), rounds=1)
    assert (counts["sent"], counts["failed"]) == (0, 1)
    assert ("AUTH" in server.words) == trusted
    assert ("SMTP status 535" if trusted else "SSLCertVerificationError") in caplog.text
    assert server.mails == []
    assert "wrong" not in caplog.text


def test_no_mail_is_sent_in_the_clear_where_encryption_was_asked_for():
    with Server() as server:
        alerts = Alerts([Email("127.0.0.1", "guard@example.org", "ops@example.org", server.port)])
        counts = played(Guard(First(), "ban", observers=[alerts]), rounds=1)
    assert counts["sent"] == 0
    assert "MAIL" not in server.words


def test_an_email_without_encryption():
    with Server() as server:
        mail = Email("127.0.0.1", "guard@example.org", "ops@example.org", server.port, security="none")
        counts = played(Guard(First(), "ban", observers=[Alerts([mail], on=["ban"])]), rounds=1)
    assert counts["sent"] == 1
    ((login, encrypted, addresses, _),) = server.mails
    assert (login, encrypted, addresses) == (None, False, ["ops@example.org"])
