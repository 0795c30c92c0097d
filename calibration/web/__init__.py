"""The technician's page: its own process, which reads the station and never stands in its way."""
