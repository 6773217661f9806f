"""`python -m forkproof`."""

from forkproof.cli import main

main()
