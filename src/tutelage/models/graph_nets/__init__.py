"""Networks on the nodes of a graph: GCN, GraphSAGE, GAT, APPNP."""
