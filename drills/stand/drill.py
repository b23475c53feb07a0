"""The folder of a drill: removed at its end, unless DRILL_KEEP is set."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def folder(name: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"drill-{name}-"))
    # Postgres works as another user, and must be able to come through.
    path.chmod(0o755)
    if os.environ.get("DRILL_KEEP"):
        print(f"kept: {path}")
    else:
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
