"""The tests. `pure` needs no database; everything else gets a database of its own for each test."""
