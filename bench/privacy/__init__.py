"""What is found of personal data, and how long it takes: beside Presidio and DataFog. `bench/privacy/run.sh`"""
