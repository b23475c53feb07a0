#!/usr/bin/env python3
"""Whether compose.yaml holds together, where no Docker is: references, files, settings. With Docker: `docker compose config`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

# What Compose knows of a service, as far as we use it.
KNOWN = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "networks", "ports",
    "read_only", "restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes",
}  # fmt: skip


def wrong(file: Path) -> list[str]:
    body = yaml.safe_load(file.read_text(encoding="utf-8"))
    services = body["services"]
    found = []
    for name, service in services.items():
        found += [f"{name}: unknown key {key}" for key in set(service) - KNOWN]
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                found.append(f"{name}: waits for {other}, which does not exist")
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                found.append(f"{name}: waits until {other} is healthy, but nothing checks that")
        found += [f"{name}: no network {one}" for one in service.get("networks", []) if one not in body["networks"]]
        found += [f"{name}: no secret {one}" for one in service.get("secrets", []) if one not in body["secrets"]]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (file.parent / source).is_file():
                    found.append(f"{name}: no file {source}")
            elif source not in body["volumes"]:
                found.append(f"{name}: no volume {source}")
        found += [
            f"{name}: {port} is open to the network"
            for port in service.get("ports", [])
            if not port.startswith("127.0.0.1:")
        ]
        for value in (service.get("environment") or {}).values():
            for variable in re.findall(r"\$\{([^}]*)\}", str(value)):
                if not re.fullmatch(r"[A-Z_]+(:[-?].+)", variable):
                    found.append(f"{name}: ${{{variable}}} has neither a default nor a message")
    for image, version in (("postgres", "16"), ("redis", "7")):
        if not services[image]["image"].startswith(f"{image}:{version}"):
            found.append(f"{image}: not version {version}")
    return found


def main() -> None:
    file = Path(sys.argv[1])
    lines = wrong(file)
    print("\n".join(lines))
    has_compose = (
        shutil.which("docker")
        and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    )
    if has_compose:
        settings = {"OIDC_ISSUER": "https://issuer.example", "OIDC_AUDIENCE": "x"}
        subprocess.run(
            ["docker", "compose", "--file", str(file), "config", "--quiet"],
            check=True,
            env={"PATH": "/usr/bin:/usr/local/bin", "HOME": "/root", **settings},
        )
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
