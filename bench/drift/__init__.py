"""How often is an alarm of drift false, and how soon does a true one come? `bench/drift/run.sh`"""
