"""Whether a pinned package has a known vulnerability, as far as the service that knows can be reached: `make audit`.

pip-audit by itself calls it a success when the service knew none of the packages, as where only a mirror of the index
can be reached.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent / "dev.lock"  # holds what runtime.lock holds, and more
COMMAND = ["-m", "pip_audit", "--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
UNREACHABLE = (
    "Known vulnerabilities were NOT looked up: the service that knows them cannot be reached from here.\n"
    "Run make audit where it can, and before each release."
)


def main() -> int:
    done = subprocess.run(
        [sys.executable, *COMMAND, f"--requirement={LOCK}"], capture_output=True, text=True, check=False
    )
    code, said = verdict(done.returncode, done.stdout, done.stderr)
    print(said)  # noqa: T201 (this is what it is run for)
    return code


def verdict(returncode: int, stdout: str, stderr: str) -> tuple[int, str]:
    """The exit code and what to say: 1 for a vulnerability, a package that was not looked up, or a failure."""
    if not stdout.strip():
        return (0, UNREACHABLE) if "onnect" in stderr else (1, f"pip-audit failed ({returncode}):\n{stderr}")
    packages: list[dict[str, Any]] = json.loads(stdout)["dependencies"]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    found = [(one, known) for one in packages for known in one.get("vulns", ())]
    if len(skipped) == len(packages):
        return 0, UNREACHABLE
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, mended in: {', '.join(known['fix_versions']) or 'none yet'}"
        for one, known in found
    ]
    lines += [f"{name}: the service does not know this version" for name in skipped]
    if lines:
        return 1, "\n".join([*lines, "Pin newer versions with: make lock"])
    return 0, f"None of {len(packages)} pinned packages has a known vulnerability."


if __name__ == "__main__":
    sys.exit(main())
