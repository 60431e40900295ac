"""What Sphinx needs for this site: pages from the registry, docstrings, links into the checkout."""
