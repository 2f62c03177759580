"""What stands beside an engine that keeps claims: socket, HTTP middleware, owners, metrics; it knows no engine."""
