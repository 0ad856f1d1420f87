"""Objectives: what a method makes of uncertain rewards. One file a family.

An objective is a function

    (rewards, beta, **parameters) -> Signal

of the ``Rewards`` of B responses, the method's KL coefficient ``beta`` and keyword-only parameters.
Every public function of this package's files is one, and its name is what a method's ``objective``
in the configuration may say. It asks for what it uses by naming it among its keyword parameters:

- ``head: int``, the policy's own member. Its policies then differ by their member; those of an
  objective that does not ask for one differ by their ensemble alone, which is its unit;
- ``spread: Tensor`` [B], sigma of each response, taken as the method's ``spread`` says (of the
  members or of a Bayesian last layer, centred, scaled, clipped, or shuffled as a control);
- ``reference_spread: Tensor`` [R], the same of responses of the reference policy;
- ``std: Tensor`` [B, K], the members' own standard deviations;
- ``last_layer: LastLayer``, what the training pairs know of a linear reward on the features;
- ``run: Run``, for random draws, a memory, or the reference policy's responses.

All other parameters have a type of ``prudent.settings`` or of Python, and a default. They are keys
of the method:

    def lower_confidence_bound(rewards, beta, *, spread: Tensor, width: Nonnegative = 1.0) -> Signal

    methods:
      careful: {objective: lower_confidence_bound, beta: 0.3, width: 2.0}

Lines of the docstring that begin with ``Score:``, ``Coefficient:``, ``Source:`` and the like are
what docs/methods.md says of it in its table.

To add a method, add a function to a family's file, or a file, and a line to the configuration. What
it returns is checked by ``prudent.objectives.signal.evaluate``, through which all callers go.
"""
