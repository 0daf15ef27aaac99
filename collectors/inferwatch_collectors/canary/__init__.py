"""The canary probe: fixed prompts, whose next token's probabilities say whether the model is still the same."""
