"""The gallery on a PostgreSQL server, which :mod:`reidkit.galleries.postgres` registers."""
