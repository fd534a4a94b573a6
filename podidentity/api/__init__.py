"""The words of the project: small typed records, normalised IDs, wire shapes, errors. No I/O here."""
