"""Every configuration key, as data: a section a struct, with its default, its bounds and its meaning."""
