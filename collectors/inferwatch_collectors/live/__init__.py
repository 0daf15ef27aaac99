"""The live page on the admin port: what happens now, and what happened in the last hours, from memory."""
