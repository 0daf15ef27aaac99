"""Quality without labels: what an answer itself, and what its client does next, say about whether it was of use."""
