"""What requests cost by list price, and what they would have cost elsewhere."""
