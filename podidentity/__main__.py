"""`python -m podidentity`."""

from podidentity.cli import main

main()
