"""Module in, files out: load, describe inputs, capture, translate, simplify, convert, bundle."""
