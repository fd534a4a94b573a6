"""Azure as far as this project meets it: ARM, the Entra login host and IMDS over one in-memory state."""
