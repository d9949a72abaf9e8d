"""One module a driver, imported only when a transaction's first parameter names its type."""
