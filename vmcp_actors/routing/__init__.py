"""The routing table and how it is made of the backends' catalogs: pure functions and immutable values."""

from .merge import build_table, static_conflicts
from .table import Route, RoutingTable, TableStatistics

__all__ = ["Route", "RoutingTable", "TableStatistics", "build_table", "static_conflicts"]
