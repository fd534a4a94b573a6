"""Logs: one line an event, JSON unless a person is looking. Libraries' logs come the same way, from warnings up."""

import logging
import sys
from typing import Literal

import structlog

LogFormat = Literal["auto", "json", "text"]
_DEBUG_VERBOSITY = 5
"""klog's `-v=5` is where upstream began to explain itself."""


def configure(*, log_format: LogFormat = "auto", verbosity: int = 0) -> None:
    """Set up logging to stderr for the whole process."""
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if text else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # It warns of each request that is no HTTP, and any pod can send those by the thousand.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("podidentity").setLevel(logging.DEBUG if verbosity >= _DEBUG_VERBOSITY else logging.INFO)
