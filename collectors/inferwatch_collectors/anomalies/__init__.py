"""Unusual spending: evidence that a tenant does what it never did, with a stated rate of false alarms."""
