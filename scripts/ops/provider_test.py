#!/usr/bin/env python3
"""Whether provider.py finds what is wrong: each line breaks a copy of infra/ in one way, and must be noticed."""

import shutil
import sys
import tempfile
from pathlib import Path

from provider import Check

# file, what stands there, what shall stand there, what must be said
BREAKS = [
    ("modules/kms/main.tf", 'purpose  = "ASYMMETRIC_SIGN"', 'purposes = "ASYMMETRIC_SIGN"', "no attribute purposes"),
    (
        "modules/kms/main.tf",
        "protection_level = var",
        "protection_levels = var",
        "version_template: no attribute protection_levels",
    ),
    ("modules/kms/main.tf", "  version_template {", "  version_templates {", "no block version_templates"),
    (
        "modules/kms/main.tf",
        'resource "google_kms_key_ring" "this"',
        'resource "google_kms_keyring" "this"',
        "the provider has no such type",
    ),
    ("modules/kms/main.tf", "key_ring = google_kms_key_ring.this.id\n", "", "key_ring is required"),
    (
        "modules/cloud-sql/main.tf",
        "retained_backups = var",
        "retained = var",
        "settings.backup_configuration.backup_retention_settings: no attribute retained",
    ),
    ("modules/cloud-sql/main.tf", ".private_ip_address]", ".private_address]", "has no private_address"),
    (
        "modules/gke/main.tf",
        "    workload_metadata_config {\n      mode ",
        "    workload_metadata_config {\n      node_metadata ",
        "workload_metadata_config: no attribute node_metadata",
    ),
    (
        "modules/gke/main.tf",
        "cidr_block   = cidr_blocks.value",
        "cidr         = cidr_blocks.value",
        "master_authorized_networks_config.cidr_blocks: no attribute cidr",
    ),
    (
        "modules/gke/main.tf",
        '  release_channel {\n    channel = "REGULAR"\n  }',
        '  release_channel = { channel = "REGULAR" }',
        "release_channel is a block, not an attribute",
    ),
    (
        "modules/gke/main.tf",
        "  release_channel {",
        '  release_channel {\n    channel = "RAPID"\n  }\n  release_channel {',
        "only one may be there",
    ),
    (
        "modules/monitoring/main.tf",
        "condition_absent {\n      filter ",
        "condition_absent {\n      filters ",
        "condition_absent: no attribute filters",
    ),
    ("modules/secrets/main.tf", "special = false", "specials = false", "no attribute specials"),
    ("modules/network/main.tf", "var.nodes_cidr", "var.node_cidr", "no variable node_cidr"),
    ("environments/dev/main.tf", "operator_cidrs      = var.operator_cidrs\n", "", "module gke needs operator_cidrs"),
    ("environments/dev/outputs.tf", "module.kms.", "module.kmz.", "no module kmz"),
    (
        "environments/dev/main.tf",
        "module.cloud_sql.host",
        "module.cloud_sql.hostname",
        "module cloud_sql has no output hostname",
    ),
    (
        "environments/production/main.tf",
        "  memory_gb  =",
        "  memory_mb  =",
        "module memorystore has no variable memory_mb",
    ),
    ("modules/dns/versions.tf", "~> 6.50", "~> 7.0", "does not ask for google ~> 6.50"),
    ("modules/kms/README.md", "## When it dies", "## Else", "README.md does not say"),
]


def main() -> None:
    infra, types = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    missed = []
    tried = 0
    for file, old, new, said in BREAKS:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder).resolve() / "infra"
            shutil.copytree(infra, copy)
            text = (copy / file).read_text(encoding="utf-8")
            if old not in text:
                if said:
                    missed.append(f"{file}: «{old}» is not there any more")
                continue
            (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
            tried += 1
            check = Check(copy, types)
            check.run(only=(copy / file).parent)
            if not check.wrong or (said and not any(said in line for line in check.wrong)):
                missed.append(f"{file}: «{new}» was not noticed; said: {check.wrong}")
    print("\n".join(missed))
    print(f"{tried} breaks tried")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
