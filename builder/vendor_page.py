"""The page's one library, taken from npm into flux_engine/gateway/page/vendor: `python -m builder.vendor_page`.

`vendor.json` beside it says name, version, licence and the file's SHA-256; a test holds the file to it. The package
archive itself is checked against its npm integrity hash, which stands here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "flux_engine" / "gateway" / "page" / "vendor"
PACKAGE: Final = "htm"
VERSION: Final = "3.1.1"
INTEGRITY: Final = "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ=="
MEMBER: Final = "package/preact/standalone.module.js"  # htm, Preact and its hooks in one module
LICENCE: Final = "Apache-2.0 (htm), MIT (Preact)"
FILE: Final = "preact.js"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise SystemExit(f"{PACKAGE} {VERSION} is not what was reviewed: {found}")
        with tarfile.open(archive) as opened:
            member = opened.extractfile(MEMBER)
            if member is None:
                raise SystemExit(f"{MEMBER} is not in the package")
            data = member.read()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / FILE).write_bytes(data)
    facts = {
        "file": FILE,
        "package": PACKAGE,
        "version": VERSION,
        "member": MEMBER,
        "licence": LICENCE,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (FOLDER / "vendor.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
