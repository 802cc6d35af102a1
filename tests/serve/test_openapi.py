"""Row S18: the service keeps to its own OpenAPI document, whatever it is sent. The campaign asks for more examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.serve.service import Service

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES, SEED = 4, 20261128


def test_every_path_keeps_to_the_document_that_describes_it(service: Service, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    flags = ["--config-file", str(CONFIG), "--no-color", "run", f"{service.url}/openapi.json", "--checks", "all"]
    bounds = ["--max-examples", str(EXAMPLES), "--seed", str(SEED)]
    environment = os.environ | {"MODEL": service.name, "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, *flags, *bounds], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout
    assert found[1] == found[2]
    assert int(found[1]) > 100
    assert service.ask("GET", "/readyz").status == 200
