"""`python -m kenpin`, the same as the `kenpin` command."""

from kenpin.cli import main

main()
