"""`python -m domainclip`, and what `accelerate launch -m domainclip` starts."""

from domainclip.cli.app import main

main()
