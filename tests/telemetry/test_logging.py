import json
import subprocess
import sys

import pytest

SECRET = "s3cr3t-of-the-test"

PROGRAM = """
import logging, structlog
from podidentity.telemetry.logging import configure
configure(**{options})
log = structlog.get_logger("podidentity.test")
log.debug("a_detail")
log.info("something_happened", pod="ns/p", seconds=1.5)
logging.getLogger("azure.core").info("chatter")
logging.getLogger("azure.core").warning("trouble %s", 7)
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.warning("it_failed", exc_info=True)
{more}
"""


def run(options, more=""):
    """Log in a process of its own: logging is set up once for a whole process."""
    program = PROGRAM.format(options=options, more=more)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_event_is_one_line_of_json():
    lines = [json.loads(line) for line in run({"log_format": "json"})]
    happened, trouble, failed = lines
    assert happened["event"] == "something_happened"
    assert (happened["pod"], happened["seconds"], happened["level"]) == ("ns/p", 1.5, "info")
    assert happened["timestamp"].endswith("Z")
    assert (trouble["event"], trouble["level"]) == ("trouble 7", "warning")
    assert "ValueError: two\nlines" in failed["exception"]


def test_without_a_terminal_json_is_the_default():
    assert json.loads(run({})[0])["event"] == "something_happened"


def test_text_is_for_people():
    lines = run({"log_format": "text"})
    assert "something_happened" in lines[0]
    assert not lines[0].startswith("{")


@pytest.mark.parametrize(("verbosity", "shown"), [(0, False), (4, False), (5, True), (9, True)])
def test_details_are_shown_at_klog_s_level(verbosity, shown):
    assert any("a_detail" in line for line in run({"log_format": "json", "verbosity": verbosity})) is shown


def test_a_configuration_or_a_credential_that_is_logged_shows_no_secret():
    more = f"""
from podidentity.azure.clouds import find_cloud
from podidentity.azure.config import load
config = load("", {{"TENANT_ID": "t", "CLIENT_ID": "c", "CLIENT_SECRET": "{SECRET}"}})
log.info("settings", config=config)
log.info("settings", config=[config], text=f"{{config}}")
from podidentity.controller.settings import ControllerSettings
log.info("settings", settings=ControllerSettings(azure=config))
"""
    lines = run({"log_format": "json", "verbosity": 9}, more)
    assert len(lines) == 7
    assert not any(SECRET in line for line in lines)
