"""The gallery on a Milvus server, which :mod:`reidkit.galleries.milvus` registers."""
