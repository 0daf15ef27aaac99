"""The durable record of finished requests, and of the counters that go with them."""
