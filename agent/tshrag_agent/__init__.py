"""The daemon on a lab host: it hears commands, does the work, tells what came of it."""
