"""Drift: evidence that the traffic or the model is no longer what it was, with a stated rate of false alarms."""
