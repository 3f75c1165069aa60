"""Asks the advisory database about every pinned package, by pip-audit; a finding fails, silence is said to be silence.

    make audit

pip-audit passes over packages that it could not ask about, and ends well. Behind a mirror that serves files but no
advisories that is every one of them, so what was not asked is counted here and said in one line.
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
    (1, ['a 1: X-1, mended in 2', '1 packages asked about, 1 with a known weakness'])
    >>> verdict({"dependencies": [{"name": "a", "skip_reason": "not found"}]})
    (0, ['the advisory database could not be asked about any of 1 packages (not found): this says nothing'])
    """
    dependencies = report["dependencies"]
    skipped = [one for one in dependencies if "skip_reason" in one]
    asked = [one for one in dependencies if "skip_reason" not in one]
    if not asked:
        reason = skipped[0]["skip_reason"] if skipped else "no package is pinned"
        what = f"any of {len(skipped)} packages ({reason})"
        return 0, [f"the advisory database could not be asked about {what}: this says nothing"]
    weak = [one for one in asked if one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, "
        f"mended in {' or '.join(found['fix_versions']) or 'no version yet'}"
        for one in weak
        for found in one["vulns"]
    ]
    if skipped:
        lines.append(f"not asked about: {', '.join(sorted(one['name'] for one in skipped))}")
    lines.append(f"{len(asked)} packages asked about, {len(weak)} with a known weakness")
    return int(bool(weak)), lines


def main() -> None:
    """Ask about constraints.txt, torch and the pages' tools included.

    Raises:
        SystemExit: with 1 where something is known.
    """
    pip_audit = sys.argv[1] if len(sys.argv) > 1 else "pip-audit"
    words = [pip_audit, "--no-deps", "--disable-pip", "--requirement", str(ROOT / "constraints.txt")]
    words += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except ValueError:
        said = re.sub(r"//[^/@\s]+@", "//***@", (done.stderr.strip().splitlines() or ["no answer"])[-1])
        code, lines = 0, [f"the advisory database could not be asked ({said[:200]}): this says nothing"]
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
