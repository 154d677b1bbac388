"""Damaged, crafted and nonsensical input for every door of the program, judged case by case.

A *kind* (``kinds/``) builds case after case: the input of case NUMBER is a function of the kind's name and
the number alone. A *case* is one call of the ``reid`` command or of the Python interface in a folder of its
own. It runs in a worker process, which may die or hang; ``judge`` says what is wrong with what came of it.
Structures are drawn by Hypothesis, damage to bytes by generators with fixed seeds.

    python benchmarks/fuzzing.py --cases 2000                 all kinds
    python benchmarks/fuzzing.py --kind patterns --number 17  one case again, with all it printed
"""
