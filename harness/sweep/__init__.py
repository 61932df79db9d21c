"""One sweep from its command line to its run table: compose, plan, launch, show."""
