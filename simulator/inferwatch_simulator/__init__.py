"""An inference server to demonstrate and test against, one persona per engine."""
