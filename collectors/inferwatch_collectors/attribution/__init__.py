"""What the machine costs, in money and joules, divided among the requests that worked in each second."""
