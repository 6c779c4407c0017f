"""The Kubernetes manifests against their schemas: ``python -m tests.programs.manifests`` (make manifests-test).

Those of Kubernetes itself and those of KEDA, the workers' autoscaler, as the packages ``kubernetes-models`` and
``@kubernetes-models/keda`` of npm have them from their projects' own definitions. What a schema cannot say, such as
whether names and ports meet, ``tests/image/test_deploy_files.py`` looks at.

Needs Node.js 20 or later with npm. What it installs goes into ``.manifests``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.stack import ROOT

DEPLOY = ROOT / ".github" / "deploy"
FOLDER = ROOT / ".manifests"
PACKAGE = {"private": True, "dependencies": {"kubernetes-models": "4.5.1", "@kubernetes-models/keda": "0.4.2"}}
VALIDATE = """
const manifests = JSON.parse(require("fs").readFileSync(0, "utf8"));
const faults = manifests.map((manifest) => {
  const home = manifest.apiVersion.startsWith("keda.sh/") ? "@kubernetes-models/keda/" : "kubernetes-models/";
  try {
    const found = require(home + manifest.apiVersion + "/" + manifest.kind);
    new found[manifest.kind](manifest).validate();
    return "";
  } catch (error) {
    return error.message.split("\\n")[0];
  }
});
console.log(JSON.stringify(faults));
"""
SPOILT = {
    "an autoscaler that names no target": ("ScaledObject", lambda spec: spec["scaleTargetRef"].pop("name")),
    "an autoscaler without a trigger": ("ScaledObject", lambda spec: spec.pop("triggers")),
    "a pause that is a word": ("ScaledObject", lambda spec: spec.update(pollingInterval="often")),
    "a deployment without a template": ("Deployment", lambda spec: spec.pop("template")),
}
"""What a validation must find: kind of the manifest, and what is done to it."""


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each whole manifest that is delivered, with its file and kind; kustomizations and their patches are none."""
    for path in sorted(DEPLOY.glob("kubernetes*/*.yaml")):
        if path.name != "kustomization.yaml":
            for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield f"{path.parent.name}/{path.name}: {one['kind']}", one


def faults(documents: list[dict[str, Any]]) -> list[str]:
    """What the schema of each has against it; empty where nothing."""
    done = subprocess.run(
        ["node", "-e", VALIDATE],
        cwd=FOLDER,
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def spoilt(kind: str, spoil: Any) -> dict[str, Any]:
    """A delivered manifest of a kind, with a mistake."""
    one = next(manifest for _, manifest in manifests() if manifest["kind"] == kind)
    spoil(one["spec"])
    return one


def main() -> int:
    """Exit code 0 when every manifest is valid, and every mistake was found."""
    if shutil.which("npm") is None:
        print("npm is missing: install Node.js 20 or later", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "package.json").write_text(json.dumps(PACKAGE), encoding="utf-8")
    print("installing the schemas from npm ...", flush=True)
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit"]
    subprocess.run(command, cwd=FOLDER, check=True)
    named = list(manifests())
    wrong = [
        f"{name}: {fault}" for (name, _), fault in zip(named, faults([one for _, one in named]), strict=True) if fault
    ]
    answers = faults([spoilt(kind, spoil) for kind, spoil in SPOILT.values()])
    wrong += [f"{mistake} was not found" for mistake, fault in zip(SPOILT, answers, strict=True) if not fault]
    print("\n".join(wrong) or f"{len(named)} manifests are valid; {len(SPOILT)} mistakes were found")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
