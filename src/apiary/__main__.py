"""`python -m apiary` is the command `apiary`."""

from apiary.cli import main

main()
