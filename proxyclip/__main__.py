"""`python -m proxyclip` is the `proxyclip` command."""

from proxyclip.cli import main

main()
