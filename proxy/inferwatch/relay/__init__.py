"""The data plane: lets every byte through, notes when it came, and mirrors it to the collector."""
