"""What was used, by whom, what it cost and what of it was wasted: from the roll-ups of the ledger."""
