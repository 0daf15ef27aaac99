"""The control plane: turns mirrored bytes into records, metrics and the ledger."""
