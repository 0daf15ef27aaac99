"""Feedback: what users say an answer was worth, joined to who gave it."""
