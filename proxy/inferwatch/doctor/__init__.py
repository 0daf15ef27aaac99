"""`inferwatch doctor`: what is wrong on this host or with the engine, and what to do about it. Changes nothing."""
