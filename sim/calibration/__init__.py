"""From kernel traces and measured runs to constants and tables of the cost model."""
