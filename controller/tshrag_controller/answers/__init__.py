"""The answers of the one API: each handler takes a request and the asker, returns an answer."""
