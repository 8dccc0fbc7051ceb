"""One function a mode: (config, workdir) → the JSON that describes the outcome."""
