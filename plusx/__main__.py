"""`python -m plusx`: the command line, for `torchrun -m plusx` and where no script is on the path."""

from plusx.cli import main

if __name__ == "__main__":
    main()
