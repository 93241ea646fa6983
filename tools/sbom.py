"""Write the bill of materials of an environment in CycloneDX: `python -m tools.sbom PYTHON FILE`.

cyclonedx-py describes the environment and validates the form. It knows no version that comes from tags, so
that of the installed package is added; a path of this machine in the file is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
_VERSION = "import importlib.metadata as m; print(m.version('domainclip'))"


def main(python: str, out: Path) -> int:
    """Write the file; the number of components."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    options = [
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--output-reproducible",
        "--validate",
        "-o",
        str(out),
    ]
    subprocess.run([str(tool), "environment", python, *options], check=True)
    version = subprocess.run(
        [python, "-I", "-c", _VERSION], check=True, capture_output=True, text=True
    ).stdout
    data = json.loads(out.read_text(encoding="utf-8"))
    data["metadata"]["component"]["version"] = version.strip()
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if "file://" in text:
        raise SystemExit(f"{out}: names a path of this machine: install into a new environment")
    out.write_text(text + "\n", encoding="utf-8")
    return len(data["components"])


if __name__ == "__main__":
    print(f"{sys.argv[2]}: {main(sys.argv[1], Path(sys.argv[2]))} components")
