"""MongoDB, replica set or sharded cluster: pooled collections, dedicated spaces as collections of their own."""
