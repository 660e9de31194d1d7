"""Results in the forms of common tools -> samples."""
