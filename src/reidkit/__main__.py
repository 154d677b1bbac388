"""``python -m reidkit``, ``torchrun -m reidkit`` and the ``reid`` command."""

from reidkit.cli import main

if __name__ == "__main__":
    main()
