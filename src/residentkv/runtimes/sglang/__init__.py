"""SGLang 0.5.23: its server started on a CPU, an observer of its events and answers, and its study."""
