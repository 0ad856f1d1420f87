"""Objectives: what a method makes of uncertain rewards. One file a family.

An objective is a function

    (rewards, head, beta, **parameters) -> Signal

of the ``Rewards`` of B responses, the policy's own ``head``, the method's KL coefficient ``beta``
and its own keyword parameters. Every public function of this package's files is one, and its name
is what a method's ``objective`` in the configuration may say. Its parameters are keyword-only, with
a type of ``prudent.settings`` or of Python and a default; they are keys of the method:

    def lower_confidence_bound(rewards, head, beta, *, width: Nonnegative = 1.0) -> Signal: ...

    methods:
      careful: {objective: lower_confidence_bound, beta: 0.3, width: 2.0}

A method with random draws or a memory asks for ``run``, a ``Run``. To add a method, add a function
to a family's file, or a file, and a line to the configuration.
"""
