import os
import shutil
import subprocess
import sys

import pytest

PROBE = "import sys; from podidentity.emulator.lab.preflight import explain_missing; sys.exit(*explain_missing()[:1])"


@pytest.fixture(scope="session")
def ordinary_user():
    """The beginning of a command that runs the rest of it as a user without any capability."""
    prefix = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv") or pytest.skip("needs setpriv")
        prefix = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    tried = subprocess.run([*prefix, sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"an ordinary user cannot: {tried.stderr.strip()}")
    return prefix
