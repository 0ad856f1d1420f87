"""Objectives: how methods use uncertain rewards. One file per family.

An objective is a function

    (rewards, beta, **parameters) -> Signal

of the ``Rewards`` of B responses, the method's KL coefficient ``beta`` and keyword-only parameters.
Every public function of this package's files is an objective, and a method's ``objective`` in the
configuration is its name. It asks for its inputs by naming them among its keyword parameters:

- ``head: int``, the policy's own member. Policies then differ by their member; without it they
  differ by their ensemble alone, which is the objective's unit;
- ``spread: Tensor`` [B], sigma of each response, taken as the method's ``spread`` says (of the
  members or of a Bayesian last layer, centred, scaled, clipped, or shuffled as a control);
- ``reference_spread: Tensor`` [R], the same of responses of the reference policy;
- ``std: Tensor`` [B, K], the members' own standard deviations;
- ``last_layer: LastLayer``, the precision that training pairs give a linear reward on the features;
- ``run: Run``, for random draws, a memory, or the reference policy's responses.

All other parameters have a type of ``prudent.settings`` or of Python, and a default. They are keys
of the method:

    def lower_confidence_bound(rewards, beta, *, spread: Tensor, width: Nonnegative = 1.0) -> Signal

    methods:
      careful: {objective: lower_confidence_bound, beta: 0.3, width: 2.0}

Lines of the docstring that begin with ``Score:``, ``Coefficient:``, ``Source:`` and the like go
into the table of docs/methods.md.

To add a method, add a function to a family's file, or a file, and a line to the configuration. All
callers use ``prudent.objectives.signal.evaluate``, which checks what the function returns.
"""
