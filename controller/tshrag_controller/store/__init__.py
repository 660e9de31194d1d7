"""What rests on disk beside the LOG: the projection, samples, output."""
