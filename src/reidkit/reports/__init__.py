"""Reports: pages that show what was measured."""
