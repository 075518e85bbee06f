"""Everything around the domain: processes, storage, streams, settings and the command line."""
