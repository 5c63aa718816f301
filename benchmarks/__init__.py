"""How fast an implementation is, beside a yardstick and a copy of the same size; and how fast the suite is, beside a bare loop."""
