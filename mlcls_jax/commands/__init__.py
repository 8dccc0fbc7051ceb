"""Commands without a configuration file, one file per verb: `run(arguments)` → text."""
