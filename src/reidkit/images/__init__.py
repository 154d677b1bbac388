"""Images: read them exactly, know what a file is and whether it is whole, bring them to a network."""
