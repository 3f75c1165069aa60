"""Looks up every pinned package in the advisory database, by pip-audit; a finding fails, a missing answer is reported.

    make audit

pip-audit skips packages that it could not look up, and succeeds. Behind a mirror that serves files but no advisories
that is all of them, so skipped packages are counted here and reported in one line.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Exit status and lines for pip-audit's JSON.

    >>> verdict({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}]})
    (1, ['a 1: X-1, fixed in 2', '1 packages looked up, 1 with a known vulnerability'])
    >>> verdict({"dependencies": [{"name": "a", "skip_reason": "not found"}]})
    (0, ['no result: the advisory database answered for none of 1 packages (not found)'])
    """
    dependencies = report["dependencies"]
    skipped = [one for one in dependencies if "skip_reason" in one]
    asked = [one for one in dependencies if "skip_reason" not in one]
    if not asked:
        reason = skipped[0]["skip_reason"] if skipped else "no package is pinned"
        return 0, [f"no result: the advisory database answered for none of {len(skipped)} packages ({reason})"]
    weak = [one for one in asked if one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, "
        f"fixed in {' or '.join(found['fix_versions']) or 'no version yet'}"
        for one in weak
        for found in one["vulns"]
    ]
    if skipped:
        lines.append(f"not looked up: {', '.join(sorted(one['name'] for one in skipped))}")
    lines.append(f"{len(asked)} packages looked up, {len(weak)} with a known vulnerability")
    return int(bool(weak)), lines


def main() -> None:
    """Look up constraints.txt, torch and the tools of `make docs` included.

    Raises:
        SystemExit: with 1 where a package has a known vulnerability.
    """
    pip_audit = sys.argv[1] if len(sys.argv) > 1 else "pip-audit"
    words = [pip_audit, "--no-deps", "--disable-pip", "--requirement", str(ROOT / "constraints.txt")]
    words += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except ValueError:
        said = re.sub(r"//[^/@\s]+@", "//***@", (done.stderr.strip().splitlines() or ["no answer"])[-1])
        code, lines = 0, [f"no result: the advisory database did not answer ({said[:200]})"]
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
