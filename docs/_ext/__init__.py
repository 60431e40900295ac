"""What Sphinx needs to build FedGuard's site: pages from the registry, docstrings, links into the checkout."""
