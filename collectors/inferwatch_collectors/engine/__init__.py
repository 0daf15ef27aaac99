"""The engine by its own account: its `/metrics`, under one set of names, and compared with what was booked."""
