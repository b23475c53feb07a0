#!/usr/bin/env python3
"""Whether the rendered manifests fit together, and fit the program.

manifests.py FILE [--program PATH]

Beside what schemas can say: every Secret, ConfigMap and ServiceAccount that a pod names is there; ports have their names;
nothing is killed before its grace is over; pods keep to the `restricted` standard; each image is the same; selectors find pods; and with
a program, each setting and each subcommand is one of its own.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

# Read by the TLS library, not by us.
FOREIGN_SETTINGS = {"SSL_CERT_FILE", "SSL_CERT_DIR"}

# Subcommands that a program of today may still lack.
PENDING: set[str] = set()

Object = dict[str, Any]


def pods(one: Object) -> Object | None:
    """The pod template of a workload."""
    if one["kind"] == "CronJob":
        return one["spec"]["jobTemplate"]["spec"]["template"]
    if one["kind"] in ("Deployment", "Job"):
        return one["spec"]["template"]
    return None


class Manifests:
    def __init__(self, objects: list[Object], program: str | None) -> None:
        self.objects = objects
        self.program = program
        self.wrong: list[str] = []

    def names(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.objects if one["kind"] == kind}

    def settings(self, name: str) -> dict[str, str]:
        return next(
            (one["data"] for one in self.objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name), {}
        )

    def workloads(self) -> Iterator[tuple[str, Object, Object]]:
        for one in self.objects:
            template = pods(one)
            if template:
                yield f"{one['kind']} {one['metadata']['name']}", one, template

    def expect(self, fine: bool, where: str, what: str) -> None:
        if not fine:
            self.wrong.append(f"{where}: {what}")

    def references(self, where: str, pod: Object) -> None:
        secrets = self.names("Secret") | {
            one["spec"]["target"]["name"] for one in self.objects if one["kind"] == "ExternalSecret"
        }
        account = pod["serviceAccountName"]
        self.expect(account in self.names("ServiceAccount"), where, f"no ServiceAccount {account}")
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                self.expect(
                    volume["secret"]["secretName"] in secrets, where, f"no Secret {volume['secret']['secretName']}"
                )
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                name = source["configMapRef"]["name"]
                self.expect(name in self.names("ConfigMap"), where, f"no ConfigMap {name}")
            for variable in (one for one in container.get("env", []) if "valueFrom" in one):
                name = variable["valueFrom"]["secretKeyRef"]["name"]
                self.expect(name in secrets, where, f"no Secret {name}")
            for mount in container.get("volumeMounts", []):
                self.expect(mount["name"] in volumes, where, f"no volume {mount['name']}")
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    port = container[probe]["httpGet"]["port"]
                    self.expect(port in ports, where, f"{probe} asks the port {port}, which has no such name")

    def restricted(self, where: str, pod: Object) -> None:
        own = pod.get("securityContext", {})
        self.expect(own.get("runAsNonRoot") is True, where, "may run as root")
        self.expect(own.get("seccompProfile", {}).get("type") == "RuntimeDefault", where, "no seccomp profile")
        for container in pod["containers"]:
            context = container.get("securityContext", {})
            self.expect(context.get("allowPrivilegeEscalation") is False, where, "may gain privileges")
            self.expect(context.get("readOnlyRootFilesystem") is True, where, "may write its root file system")
            self.expect(context.get("capabilities", {}).get("drop") == ["ALL"], where, "keeps capabilities")
            limits = container.get("resources", {})
            self.expect(
                {"cpu", "memory"} <= set(limits.get("requests", {})) & set(limits.get("limits", {})),
                where,
                "no requests or limits",
            )

    def ends_in_time(self, where: str, pod: Object, settings: dict[str, str]) -> None:
        for container in pod["containers"]:
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if container.get("args") == ["project"]:
                self.reached(where, container, settings, (("METRICS_ADDR", "metrics"),))
            if container.get("args") != ["serve"]:
                continue
            grace = int(settings.get("SHUTDOWN_GRACE_SECONDS", "30"))
            given = pod.get("terminationGracePeriodSeconds", 30)
            self.expect(
                sleep >= 10, where, "the load balancer needs time to take an endpoint away: preStop sleeps under 10 s"
            )
            self.expect(
                given >= sleep + grace + 5,
                where,
                f"killed after {given} s, but preStop {sleep} and SHUTDOWN_GRACE_SECONDS {grace} need more",
            )
            self.reached(where, container, settings, (("LISTEN_ADDR", "http"), ("METRICS_ADDR", "metrics")))

    def reached(
        self, where: str, container: Object, settings: dict[str, str], listens: tuple[tuple[str, str], ...]
    ) -> None:
        for variable, port in listens:
            host, _, number = settings.get(variable, "").rpartition(":")
            declared = {one["name"]: one["containerPort"] for one in container["ports"]}
            self.expect(host == "0.0.0.0", where, f"{variable} cannot be reached from outside the pod")  # noqa: S104
            self.expect(str(declared.get(port)) == number, where, f"{variable} is not the port {port}")

    def fits_program(self, where: str, container: Object, settings: dict[str, str]) -> None:
        if not self.program or not container["image"].rpartition("/")[2].startswith("coditect-license"):
            return
        words = [word for word in container["args"] if not word.startswith("-") and re.fullmatch("[a-z]+", word)]
        answer = subprocess.run([self.program, *words, "--help"], capture_output=True, text=True, check=False)
        if answer.returncode != 0 and words[0] in PENDING:
            return
        self.expect(answer.returncode == 0, where, f"`{' '.join(words)}` is no subcommand of the program")
        for flag in (word for word in container["args"] if word.startswith("--")):
            self.expect(flag in answer.stdout, where, f"`{' '.join(words)}` knows no {flag}")
        if words == ["project"]:
            # A signer that this account may not use would be asked in vain.
            own = {one["name"]: one.get("value") for one in container.get("env", [])}
            self.expect(own.get("SIGNER") == "none", where, "project is to sign nothing here: SIGNER is not none")
            self.expect("METRICS_ADDR" in answer.stdout, where, "project has no METRICS_ADDR")
        if words == ["serve"]:
            known = set(re.findall(r"\[env: ([A-Z_]+)", answer.stdout)) | FOREIGN_SETTINGS
            for name in set(settings) - known:
                self.expect(False, where, f"serve knows no setting {name}")
            given = set(settings) | {one["name"] for one in container.get("env", [])}
            for name in {"DATABASE_URL", "REDIS_URL", "OIDC_ISSUER", "OIDC_AUDIENCE", "KMS_KEY"} - given:
                self.expect(False, where, f"{name} is required, but not set")

    def selectors(self) -> None:
        labels = [template["metadata"]["labels"] for _, _, template in self.workloads()]
        for one in self.objects:
            spec = one.get("spec", {})
            selector = {
                "Service": lambda spec: spec.get("selector"),
                "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels"),
                "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
                "PodMonitoring": lambda spec: spec["selector"]["matchLabels"],
            }.get(one["kind"], lambda _: None)(spec)
            if selector:
                found = any(selector.items() <= own.items() for own in labels)
                self.expect(found, f"{one['kind']} {one['metadata']['name']}", f"no pod has {selector}")

    def check(self) -> list[str]:
        images = set()
        for where, one, template in self.workloads():
            pod = template["spec"]
            self.expect("phase" in str(one["metadata"].get("labels")), where, "no phase: deploy.sh would not apply it")
            self.references(where, pod)
            self.restricted(where, pod)
            for container in pod["containers"]:
                settings: dict[str, str] = {}
                for source in container.get("envFrom", []):
                    settings |= self.settings(source["configMapRef"]["name"])
                self.ends_in_time(where, pod, settings)
                self.fits_program(where, container, settings)
                images.add(container["image"])
        self.expect(len(images) == 1, "images", f"one version runs at a time, not {sorted(images)}")
        for one in self.objects:
            where = f"{one['kind']} {one['metadata']['name']}"
            self.expect(
                "license.coditect.ai/phase" in one["metadata"].get("labels", {}),
                where,
                "no phase: deploy.sh would not apply it",
            )
            self.expect("set-by-overlay" not in str(one), where, "the overlay did not set a value")
        self.selectors()
        return sorted(set(self.wrong))


def main() -> None:
    file = sys.argv[1]
    program = sys.argv[3] if sys.argv[2:3] == ["--program"] else None
    with open(file, encoding="utf-8") as text:
        objects = [one for one in yaml.safe_load_all(text) if one]
    wrong = Manifests(objects, program).check()
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
