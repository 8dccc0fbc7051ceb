"""One file per mode, with a function of the same name: (config, workdir) → `Result`."""
