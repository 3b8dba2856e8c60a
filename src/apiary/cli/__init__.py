"""The command line: people get tables and colours, programs get JSON."""

from apiary.cli.main import main

__all__ = ["main"]
