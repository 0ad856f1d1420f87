"""Kinds of reward ensembles, one module each, found by name; none imports another.

Each module has

- a class with ``load(path, batch_tokens=...)``; its instances are functions ``(prompts, responses)
  -> Rewards`` and have ``untrained(backbone)``: the same ensemble before its training, or None
  where that is not known. (``warm`` and ``last_layer`` have no class: they write checkpoints of the
  kind ``heads``.)
- ``train(material, settings, count, seed, draw, output)``, which trains ensemble ``draw`` (from 0)
  of ``count`` members, writes its checkpoint and returns the losses: ensemble, head, step, loss,
  accuracy, split.
"""
