"""Budgets: what may be spent by whom until when, what has been, and when it will be gone."""
