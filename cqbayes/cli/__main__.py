"""``python -m cqbayes.cli``: the command line, where no script is installed."""

from cqbayes.cli.app import main

if __name__ == "__main__":
    main()
