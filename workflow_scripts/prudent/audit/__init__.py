"""The audit of any reward model or ensemble, given the scores that it gives to labelled pairs."""
