#!/usr/bin/env python3
"""Runs the service as the manifests configure it in the cloud: TLS to Postgres and Redis with certificates of private authorities, which are
found by SSL_CERT_DIR beside the public ones; a login that is a mere member of license_service. Without the authority it refuses to start."""

import os
import shutil
import subprocess
from pathlib import Path

from stand.drill import folder
from stand.engines import Postgres, programs
from stand.google import AUDIENCE, KEY, Issuer, Kms
from stand.processes import Process, free_port, wait_until
from stand.report import expect, finish
from stand.service import PROGRAM, Replica, call

PUBLIC = "/etc/ssl/certs/ca-certificates.crt"


def openssl(where: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=where, check=True, capture_output=True)


def certificates(where: Path) -> None:
    """An authority, and a certificate of it for 127.0.0.1."""
    openssl(
        where,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=authority of the drill",
    )
    openssl(
        where,
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
        "-subj",
        "/CN=drill",
    )
    (where / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        where,
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "server.pem",
        "-days",
        "2",
        "-extfile",
        "names",
    )
    authorities = where / "authorities"
    authorities.mkdir()
    # Named as the Secret's keys in k8s/base/secrets.yaml.
    shutil.copy(where / "ca.pem", authorities / "cloud-sql.pem")
    shutil.copy(where / "ca.pem", authorities / "memorystore.pem")


def main() -> None:
    where = folder("tls")
    certificates(where)
    trusted = {"SSL_CERT_FILE": PUBLIC, "SSL_CERT_DIR": str(where / "authorities")}
    postgres = Postgres(
        where / "postgres", ssl="on", ssl_cert_file=str(where / "server.pem"), ssl_key_file=str(where / "postgres.key")
    )
    shutil.copy(where / "server.key", where / "postgres.key")
    postgres.give(where / "postgres.key")
    (where / "postgres.key").chmod(0o600)
    postgres.initdb()
    postgres.start()
    os.environ.update(trusted)
    postgres.prepare(PROGRAM)
    for name in trusted:
        del os.environ[name]
    port = free_port()
    words = [
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "secret",
        "--save",
        "",
        "--dir",
        str(where),
    ]
    words += ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem"]
    Process(
        [str(programs()[1]), *(str(where / word) if word.endswith((".pem", ".key")) else word for word in words)],
        where / "redis.log",
    )
    issuer, kms = Issuer(), Kms()
    settings = {
        "DATABASE_URL": postgres.url("license_api") + "?sslmode=require",
        "REDIS_URL": f"rediss://:secret@127.0.0.1:{port}",
        "OIDC_ISSUER": issuer.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "SIGNER": "kms",
        "KMS_KEY": KEY,
        "KMS_ENDPOINT": kms.url,
        "RUST_LOG": "warn",
    }
    good = Replica(where, 1, {**settings, **trusted}, PROGRAM)
    good.start()
    wait_until(lambda: call(good.url, "GET", "/ready")[1]["status"] == "ok", "Redis by TLS", 10)
    expect(True, "with its authorities it is ready, with Postgres and Redis by TLS")
    used = postgres.ask(
        "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'license_api' and ssl"
    )
    plain = postgres.ask(
        "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'license_api' and not ssl"
    )
    expect(int(used) > 0 and plain == "0", f"each of its {used} connections to Postgres is encrypted")
    rights = postgres.ask(
        "select string_agg(r.rolname, ', ') from pg_auth_members m join pg_roles r on r.oid = m.roleid join pg_roles l on l.oid = m.member where l.rolname = 'license_api'"
    )
    flags = postgres.ask(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls from pg_roles where rolname = 'license_api'"
    )
    expect(rights == "license_service" and flags == "f", "its login is a member of license_service and nothing more")
    bad = Replica(where, 2, {**settings, "SSL_CERT_FILE": PUBLIC}, PROGRAM)
    bad.start(wait=False)
    wait_until(lambda: bad.process is not None and not bad.process.runs, "it ends", 15)
    said = bad.process.last_lines(1) if bad.process else ""
    expect("UnknownIssuer" in said, f"without them it refuses, in one line: {said}")
    finish()


if __name__ == "__main__":
    main()
